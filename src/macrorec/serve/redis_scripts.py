"""What lies in a Redis-compatible server, and what is done there in one step? Scripts that no other client can split.

    <name>:entries    stream; an entry's id is ``<position>-0``, its one field ``e`` holds
                      ``<checksum><user's hash><position of the user's entry before it> <entry in JSON>``
    <name>:meta       hash: ``format``; ``secret`` and ``id``, made of it; ``last`` (position); ``live`` (entries that
                      the stream must have); ``compacted``; ``run`` (of the server); ``end:<n>`` (last position before
                      the n-th jump); ``keys`` (which of the two sets of keys is being filled)
    <name>:users      hash: user's hash -> ``<position of its last entry> <id in JSON>``
    <name>:keys0, 1   sets of hashed keys; when one is full the other is emptied, and filled next
    <name>:offsets    sorted set of known ranges: ``<source's hash>:<first>:<last>``, in 19 digits each
    <name>:told       string: what the processes tell each other, see ``macrorec.serve.fleet``
    <name>:call:<id>  what became of a worker's last addition: asked twice, it is done once

A user's id lies in ``users`` alone, and its entries are chained from there: removing one field makes the rest nobody's,
even in the server's own files, where a deleted entry of a stream may stay for long. A server that was restarted may
have lost the end of the log; so every restart makes positions jump to the next multiple of ``JUMP``, none is used
twice, and a worker that knows of entries beyond the end can tell which were lost.
"""

from __future__ import annotations

FORMAT = "macrorec-log 1"
JUMP = 1_000_000_000
"""Fewer than 2^53, which is as far as the server's scripts count, divided by it: 9 million restarts."""
SUM, HASH = 8, 32
"""Characters of a checksum and of a user's hash."""
NOBODY = "-" * HASH
"""For entries that are no user's."""

_BEGIN = f"""
local function text(number) return string.format('%.0f', number) end
local function jumped(last)
  local number = math.floor(last / {JUMP})
  redis.call('HSET', KEYS[2], 'end:' .. text(number), text(last))
  return (number + 1) * {JUMP}
end
local function ended(run)
  local meta = redis.call('HMGET', KEYS[2], 'id', 'last', 'run')
  if meta[1] ~= ARGV[1] then return nil end
  local last = tonumber(meta[2])
  if meta[3] ~= run then
    last = jumped(last)
    redis.call('HSET', KEYS[2], 'run', run, 'last', text(last))
  end
  return last
end
local function add(position, checksum, user, id, entry)
  local before = '0'
  if user ~= '{NOBODY}' then
    local known = redis.call('HGET', KEYS[3], user)
    if known then before = string.sub(known, 1, string.find(known, ' ', 1, true) - 1) end
    redis.call('HSET', KEYS[3], user, text(position) .. ' ' .. id)
  end
  redis.call('XADD', KEYS[1], text(position) .. '-0', 'e', checksum .. user .. before .. ' ' .. entry)
end
local function added(last, number)
  redis.call('HSET', KEYS[2], 'last', text(last))
  redis.call('HINCRBY', KEYS[2], 'live', number)
  redis.call('PUBLISH', KEYS[1], text(last))
end
"""

OPEN = (
    _BEGIN
    + """
local id, run, secret, known = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('HSET', KEYS[2], 'format', ARGV[5], 'id', id, 'secret', secret, 'last', 0, 'live', 0, 'compacted', 0,
    'keys', 0, 'run', run)
end
local meta = redis.call('HMGET', KEYS[2], 'format', 'secret', 'id')
if meta[1] ~= ARGV[5] or (meta[3] ~= id and known > 0) then return {meta[1], meta[2]} end
ARGV[1] = meta[3]
local last = ended(run)
local number = math.floor(known / JUMP)
local stop = last
if number < math.floor(last / JUMP) then
  stop = tonumber(redis.call('HGET', KEYS[2], 'end:' .. text(number)) or 0)
end
if known > last then
  jumped(last)
  last = (number + 1) * JUMP
  redis.call('HSET', KEYS[2], 'last', text(last))
end
meta = redis.call('HMGET', KEYS[2], 'format', 'secret', 'compacted', 'live')
return {meta[1], meta[2], text(last), meta[3], text(math.min(stop, known)), meta[4], redis.call('XLEN', KEYS[1])}
""".replace("JUMP", str(JUMP))
)
"""Begin the log, or go on with it. Arguments: the log's id, as the first of every script; the server's run; the secret;
the position that is known; the format. Returns format, secret, last, compacted, the position up to which what is known
is there, live, length of the stream; of a log of another format, or id, only the first two."""

ADD = (
    _BEGIN
    + """
local call = tonumber(ARGV[2])
local done = redis.call('GET', KEYS[7])
if done then
  local number, first, last, mask = string.match(done, '^(%d+) (%d+) (%d+) (%d*)$')
  if tonumber(number) == call then return {first, last, mask} end
  if tonumber(number) > call then return {err = 'STALE'} end
end
local before = ended(ARGV[3])
if not before then return {err = 'GONE'} end
local which = tonumber(redis.call('HGET', KEYS[2], 'keys'))
local filled, older = KEYS[4 + which], KEYS[5 - which]
local n_keys = 0

local function known_offset(source, offset, previous, following)
  local base = source .. ':'
  local found = redis.call('ZREVRANGEBYLEX', KEYS[6], '[' .. base .. offset .. ';', '[' .. base, 'LIMIT', 0, 1)[1]
  local first, last = offset, offset
  if found then
    local begin, stop = string.sub(found, #base + 1, #base + 19), string.sub(found, #base + 21)
    if stop >= offset then return true end
    if stop == previous then
      first = begin
      redis.call('ZREM', KEYS[6], found)
    end
  end
  local from = '[' .. base .. following
  local beyond = redis.call('ZRANGEBYLEX', KEYS[6], from .. ':', from .. ';', 'LIMIT', 0, 1)[1]
  if beyond then
    last = string.sub(beyond, #base + 21)
    redis.call('ZREM', KEYS[6], beyond)
  end
  redis.call('ZADD', KEYS[6], 0, base .. first .. ':' .. last)
  return false
end

local position, mask = before, {}
for n, one in ipairs(cmsgpack.unpack(ARGV[5])) do
  local user, id, checksum, entry, key, source, offset, previous, following = unpack(one)
  local known = false
  if key ~= '' then
    known = redis.call('SISMEMBER', filled, key) == 1 or redis.call('SISMEMBER', older, key) == 1
  end
  if not known and source ~= '' then known = known_offset(source, offset, previous, following) end
  if not known then
    if key ~= '' then n_keys = n_keys + redis.call('SADD', filled, key) end
    position = position + 1
    add(position, checksum, user, id, entry)
  end
  mask[n] = known and '0' or '1'
end
if position > before then added(position, position - before) end
if n_keys > 0 and redis.call('SCARD', filled) >= tonumber(ARGV[4]) then
  redis.call('UNLINK', older)
  redis.call('HSET', KEYS[2], 'keys', 1 - which)
end
local result = {text(before), text(position), table.concat(mask)}
redis.call('SET', KEYS[7], text(call) .. ' ' .. table.concat(result, ' '), 'EX', 900)
return result
"""
)
"""Add entries. Arguments: id, number of the call, run, keys to remember, entries. Returns the position before, the last
one, and a digit for each entry: 1 if it was added."""

READ = f"""
local meta = redis.call('HMGET', KEYS[2], 'last', 'compacted', 'id')
if meta[3] ~= ARGV[1] then return {{err = 'GONE'}} end
local after = tonumber(ARGV[2])
if after < tonumber(meta[2]) then return {{meta[1], meta[2], ''}} end
local rows = redis.call('XRANGE', KEYS[1], string.format('%.0f-0', after + 1), '+', 'COUNT', ARGV[3])
local users, place, told = {{}}, {{}}, {{}}
for n = 1, #rows do
  local user = string.sub(rows[n][2][2], {SUM + 1}, {SUM + HASH})
  if not place[user] then
    users[#users + 1] = user
    place[user] = #users
  end
end
local ids = #users > 0 and redis.call('HMGET', KEYS[3], unpack(users)) or {{}}
for n = 1, #ids do
  ids[n] = ids[n] and string.sub(ids[n], string.find(ids[n], ' ', 1, true) + 1) or 'null'
end
for n = 1, #rows do
  local id, e = rows[n][1], rows[n][2][2]
  local user = string.sub(e, {SUM + 1}, {SUM + HASH})
  told[n] = '[' .. string.sub(id, 1, -3) .. ',"' .. string.sub(e, 1, {SUM}) .. '",' .. ids[place[user]] .. ','
    .. string.sub(e, string.find(e, ' ', {SUM + HASH + 1}, true) + 1) .. ']'
end
return {{meta[1], meta[2], '[' .. table.concat(told, ',') .. ']'}}
"""
"""Entries beyond a position. Arguments: id, it, how many at most. Returns last, compacted, and ``[position, sum, id
of the user or null, entry]`` of each in JSON; nothing where some are gone."""

FORGET = (
    _BEGIN
    + f"""
local last = ended(ARGV[2])
if not last then return {{err = 'GONE'}} end
local user, most = ARGV[3], tonumber(ARGV[4])
local known = redis.call('HGET', KEYS[3], user)
local removed, looked = 0, 0
if known then
  local space = string.find(known, ' ', 1, true)
  local position, id = string.sub(known, 1, space - 1), string.sub(known, space)
  while position ~= '0' and looked < most do
    looked = looked + 1
    local row = redis.call('XRANGE', KEYS[1], position .. '-0', position .. '-0')[1]
    if row then
      removed = removed + redis.call('XDEL', KEYS[1], row[1])
      position = string.sub(row[2][2], {SUM + HASH + 1}, string.find(row[2][2], ' ', {SUM + HASH + 1}, true) - 1)
    else
      position = '0'
    end
  end
  redis.call('HINCRBY', KEYS[2], 'live', -removed)
  if position ~= '0' then
    redis.call('HSET', KEYS[3], user, position .. id)
    return {{removed, ''}}
  end
  redis.call('HDEL', KEYS[3], user)
end
add(last + 1, ARGV[5], '{NOBODY}', '', ARGV[6])
added(last + 1, 1)
return {{removed, text(last + 1)}}
"""
)
"""Remove some of a user's entries. Arguments: id, run, user's hash, how many at most, checksum and text of what is told
of it. Returns how many went, and the position of what is told, once all have."""

COMPACT = """
local meta = redis.call('HMGET', KEYS[2], 'last', 'compacted', 'id')
if meta[3] ~= ARGV[1] then return {err = 'GONE'} end
local to = math.min(tonumber(ARGV[2]), tonumber(meta[1]))
if to > tonumber(meta[2]) then
  local n = redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-0', to + 1))
  redis.call('HINCRBY', KEYS[2], 'live', -n)
  redis.call('HSET', KEYS[2], 'compacted', string.format('%.0f', to))
else
  to = tonumber(meta[2])
end
return string.format('%.0f', to)
"""
"""Drop the entries up to a position; returns the position up to which they are gone."""

SWEEP = """
local meta = redis.call('HMGET', KEYS[2], 'compacted', 'id')
if meta[2] ~= ARGV[1] then return {err = 'GONE'} end
local compacted = tonumber(meta[1])
local page = redis.call('HSCAN', KEYS[3], ARGV[2], 'COUNT', 1000)
for n = 1, #page[2], 2 do
  local value = page[2][n + 1]
  if tonumber(string.sub(value, 1, string.find(value, ' ', 1, true) - 1)) <= compacted then
    redis.call('HDEL', KEYS[3], page[2][n])
  end
end
return page[1]
"""
"""Drop the ids of some users who have no entry left. Arguments: id, a cursor, first 0; returns the next, at last 0."""

CHECK = """
local meta = redis.call('HMGET', KEYS[2], 'last', 'compacted', 'live', 'id')
if meta[4] ~= ARGV[1] then return {err = 'GONE'} end
return {meta[1], meta[2], meta[3], redis.call('XLEN', KEYS[1])}
"""
"""How the log is: last, compacted, live, length of the stream; the last two differ where entries were lost."""


def keys(name: str, worker: str) -> list[str]:
    """The names of all that lies in the server, in one slot of a cluster; the scripts' KEYS."""
    parts = ("entries", "meta", "users", "keys0", "keys1", "offsets", f"call:{worker}")
    return [f"{{{name}}}:{part}" for part in parts]
