from dataclasses import replace

import pytest

from macrorec import configs, models, recipes
from macrorec.api import Model, Ranker, TwoTower
from macrorec.data.cuts import Given, LeaveOneOut, Nothing, RandomFraction, TimeQuantile
from macrorec.errors import ConfigError
from macrorec.graph.groups import ByFile, ByKMeans, Grouping
from macrorec.run import RunConfig

RANKED = ("dblp", "gowalla", "market", "ml-100k", "ml-100k-u1", "taobao")
CLICKED = tuple(f"{data}-{kind}" for data in ("amazon", "ml-100k", "yelp") for kind in ("ctr", "stream"))
LINKED = {
    "wikipedia": {"attachment", "bpr", "ccbie", "ease", "gebe", "gfcf", "itemknn", "lightgcn", "popular", "userknn"},
    "yelp": {"attachment", "bpr", "ccbie", "gebe", "gfcf", "itemknn", "lightgcn", "popular", "userknn"},
}
"""Models by data set of links; EASE does not fit on Yelp."""
SEVERAL_BEHAVIORS = {"cascadingrank", "evidence", "ghcf", "mbgcn", "ncf", "ngcf", "nmtr", "retarget", "swgcn"}
"""Models of several behaviours: their one data set of the six is Taobao."""
VARIANTS = {
    "cascadingrank-taobao-extra",
    "ccbie-ml-100k-history",
    "ccbie-ml-100k-u1-drawn",
    "ccbie-ml-100k-u1-wide",
    "evidence-market",
    "evidence-taobao-extra",
    "gebe-mb-taobao",
    "lightgcn-mb-taobao",
    "macgnn-ml-100k-stream-clusters",
    "macgnn-ml-100k-stream-kmeans",
    "ncf-gmf-taobao",
    "ncf-mlp-taobao",
    "ncf-neumf-taobao",
    "ngcf-mb-taobao",
    "ngcf-ob-taobao",
    "retarget-sets-taobao",
    "retarget-taobao-extra",
    "swgcn-128-taobao",
    "swgcn-free-taobao",
    "swgcn-market",
    "swgcn-printed-taobao",
    "swgcn-small-taobao",
    "swgcn-t-taobao",
}
"""Recipes beside the one per model and data set."""
CLOSED_FORM = {name for name in models.names() if models.load(name).solve is not Model.solve}


def predicts_clicks(model: str) -> bool:
    return issubclass(models.load(model), Ranker) or model == "rates"


def data_sets(model: str) -> tuple[str, ...]:
    if model == "attachment":  # ranks as popular does
        return ()
    return ("taobao",) if model in SEVERAL_BEHAVIORS else CLICKED if predicts_clicks(model) else RANKED


def test_every_model_has_every_data_set() -> None:
    wanted = {f"{model}-{data}" for model in models.names() for data in data_sets(model)} | VARIANTS
    wanted |= {f"{model}-{data}" for data, linked in LINKED.items() for model in linked}
    without_dislikes = {name for name in wanted if name.startswith("liverates-") and name.endswith("-ctr")}
    assert set(recipes.names()) == wanted - {"ease-gowalla", "ncf-taobao", "ngcf-taobao"} - without_dislikes


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_is_called_after_its_model_and_says_what_it_claims(name: str) -> None:
    config = recipes.load(name)
    assert name.startswith(configs.model_name(config.model) + "-")
    assert recipes.find(name).__doc__
    assert config.seed == 0
    model = configs.model_name(config.model)
    assert config.refit != isinstance(config.split.valid, Nothing)
    watched = config.train.monitor is not None
    assert watched == (model not in CLOSED_FORM and not isinstance(config.split.valid, Nothing))


def test_the_protocols() -> None:
    u1, taobao = recipes.load("ease-ml-100k-u1"), recipes.load("lightgcn-taobao")
    assert (u1.split.test, u1.split.valid) == (Given(), RandomFraction(fraction=0.1))
    assert (u1.split.vocabulary, u1.prepare.positive) == ("train+valid", None)
    assert (taobao.split.valid, taobao.split.vocabulary) == (LeaveOneOut(), "all")
    masks = [(b.name, b.role, b.mask) for b in taobao.source.behaviors]  # type: ignore[union-attr]
    assert masks == [("view", "auxiliary", False), ("cart", "auxiliary", False), ("buy", "target", True)]
    extra = recipes.load("cascadingrank-taobao-extra")
    assert (taobao.source.extra, extra.source.extra) == ((), ("taobao/auxiliary_extra.parquet",))  # type: ignore[union-attr]
    gfcf = recipes.load("gfcf-gowalla")
    assert (gfcf.model.alpha, gfcf.model.n_vectors, gfcf.split.vocabulary) == (0.3, 256, "all")
    lightgcn = recipes.load("lightgcn-gowalla")
    assert (lightgcn.model.dim, lightgcn.model.n_layers, lightgcn.model.l2) == (64, 3, 1e-4)
    assert (lightgcn.train.lr, lightgcn.train.batch_size, lightgcn.train.epochs) == (1e-3, 2048, 1000)


@pytest.mark.parametrize("name", recipes.names())
def test_a_space_fits_its_recipe(name: str) -> None:
    from macrorec.tune import check_space

    if recipes.space(name):
        check_space(configs.plain(recipes.load(name)), recipes.space(name))


STUDIED = [name for name in recipes.names() if recipes.ablations(name) or recipes.sweeps(name)]


@pytest.mark.parametrize("name", STUDIED)
def test_every_study_changes_its_recipe(name: str) -> None:
    whole = recipes.load(name)
    for part in recipes.ablations(name):
        without = configs.parse(RunConfig, configs.assign(configs.plain(whole), [part], RunConfig))
        assert without.model != whole.model, part
    for key, values in recipes.sweeps(name).items():
        variants = [
            configs.parse(RunConfig, configs.assign(configs.plain(whole), [f"{key}={value}"], RunConfig)).model
            for value in values.split(",")
        ]
        assert sum(model != whole.model for model in variants) >= len(variants) - 1 > 1, key


def test_an_ablation_that_changes_nothing_is_none() -> None:
    parts, of_t = recipes.ablations("swgcn-taobao"), recipes.ablations("swgcn-t-taobao")
    assert {"model.alignment=none", "model.weigher=false"} <= {*parts} & {*of_t}
    assert "model.align_target=true" in parts and "model.align_target=true" not in of_t
    reading = recipes.load("swgcn-taobao").model.alignment
    assert [f"model.alignment={own}" in parts for own in ("difference", "squared", "product")].count(False) == 1
    assert f"model.alignment={reading}" not in parts
    assert recipes.ablations("ease-market") == ()


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown recipe 'gfcf-gowala': did you mean 'gfcf-gowalla'"):
        recipes.load("gfcf-gowala")


def test_links_are_measured_on_fixed_pairs_by_what_a_model_has() -> None:
    direct = ("auc_roc", "auc_pr")
    for data, linked in LINKED.items():
        for model in linked:
            config = recipes.load(f"{model}-{data}")
            assert (config.eval.protocol, config.eval.negatives, config.eval.negative_seed) == ("links", 1, 0)
            assert (config.split.test, config.split.vocabulary) == (Given(), "all")
            probed = issubclass(models.load(model), TwoTower)
            assert config.eval.metrics[:2] == direct and (len(config.eval.metrics) == 6) == probed
            assert config.train.monitor in (None, "auc_roc")
    wikipedia, yelp = recipes.load("bpr-wikipedia"), recipes.load("bpr-yelp")
    assert wikipedia.split.valid == RandomFraction(fraction=0.1, per_user=False)
    assert wikipedia.source.probe == "wikipedia/link_train.parquet"  # type: ignore[union-attr]
    assert yelp.split.valid == Given() and not hasattr(yelp.source, "probe")
    assert configs.parse(RunConfig, configs.plain(wikipedia)) == wikipedia
    assert configs.parse(RunConfig, configs.plain(yelp)) == yelp


def test_the_history_of_a_stream_and_the_groups_made_from_it() -> None:
    history, stream = recipes.load("ccbie-ml-100k-history"), recipes.load("macgnn-ml-100k-stream")
    assert history.source == stream.source and (history.prepare.positive, stream.prepare.binary) == (4.0, 4.0)
    assert stream.features is not None and stream.features.history == 0.5
    assert history.split.test == TimeQuantile(quantile=0.512)
    clusters = ByFile(path="ml-100k-clusters.parquet", join=True)
    others: dict[str, Grouping] = {"kmeans": ByKMeans(n=20), "clusters": clusters}
    for name, items in others.items():
        other = recipes.load(f"macgnn-ml-100k-stream-{name}")
        assert other == replace(stream, features=replace(stream.features, items=items))
