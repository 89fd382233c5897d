"""One file per raw format; each exports ``read``. See ``macrorec.data.sources.source`` for the choice among them."""
