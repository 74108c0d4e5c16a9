"""Names in messages: few enough to read, in an order that people expect."""

from pipeline_runner.core.suggest import listed


def test_names_keep_the_order_of_the_file() -> None:
    assert listed(["b", "a10", "a2"]) == "b, a10, a2"
    assert listed({"b": 1, "a": 2}) == "b, a"


def test_names_without_an_order_are_sorted_as_people_sort_them() -> None:
    assert listed({"a10", "b", "a2", "a"}) == "a, a2, a10, b"


def test_many_names_are_cut_short() -> None:
    assert listed([f"s{n}" for n in range(10)]).endswith("s8, s9")
    assert listed([f"s{n}" for n in range(500)]) == "s0, s1, s2, s3, s4, s5, s6, s7, s8, …"


def test_no_names_have_a_word() -> None:
    assert listed([]) == "nothing"
    assert listed([], "none") == "none"
