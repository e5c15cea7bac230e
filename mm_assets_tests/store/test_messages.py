import pytest

from mm_assets.store.messages import bucket_key, delete_messages
from mm_assets.store.objects import Store


def test_messages_of_one_attempt_are_deleted_and_nothing_else(store: Store) -> None:
    keys = ["pipes/run/one/1.json", "pipes/run/one/2.json", "pipes/run/one-more/1.json", "pipes/run/two/1.json"]
    for key in keys:
        assert store.create_key(key, b"{}")
    assert delete_messages(store, "pipes/run/one") == 2
    assert sorted(info.key for info in store.list_keys("pipes/")) == keys[2:]


@pytest.mark.parametrize("prefix", ["objects/aa", "refs", "pipes/", "pipes", ""])
def test_nothing_but_messages_can_be_deleted(store: Store, prefix: str) -> None:
    with pytest.raises(ValueError, match=f"{prefix}: is not a folder of messages"):
        delete_messages(store, prefix)


def test_bucket_key_carries_the_prefix_of_the_store(store: Store) -> None:
    assert bucket_key(store, "pipes/run/one") == "store/pipes/run/one"
