import pytest

from macrorec.report.cells import dataset


@pytest.mark.parametrize(
    ("recipe", "model", "source", "name"),
    [
        ("ease-ml-100k-u1", "ease", {"path": "ml-100k-u1/train.txt"}, "ml-100k-u1"),
        ("din-ml-100k-ctr", "din", {"path": "ml-100k/ml-100k.inter"}, "ml-100k-ctr"),
        ("din-yelp-stream", "din", {"path": "yelp-ratings/ratings.parquet"}, "yelp-stream"),
        ("ngcf-taobao", "ngcf", {"path": "taobao/train.parquet"}, "taobao"),
        ("ngcf-mb-taobao", "ngcf", {"path": "taobao/train.parquet"}, "taobao"),
        ("retarget-sets-taobao-extra", "retarget", {"path": "taobao/train.parquet", "extra": ["a"]}, "taobao"),
        ("retarget-taobao-extra", "retarget", {"path": "taobao/train.parquet", "extra": []}, "taobao-extra"),
        ("bpr-market", "bpr", {"users": 1000}, "market"),
        ("bpr-shop", "bpr", {"path": "shop.csv"}, "shop"),
    ],
)
def test_variants_of_a_model_stand_in_the_table_of_their_data(
    recipe: str, model: str, source: dict[str, object], name: str
) -> None:
    assert dataset({"recipe": recipe, "config": {"model": {"name": model}, "source": source}}) == name
