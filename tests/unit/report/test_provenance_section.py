"""The section on provenance: shared groups once, defaults apart, lists short."""

from support.report_parts import Tags, both, evaluation

from carvana_ray.report import builder
from carvana_ray.report.provenance_section import provenance_facts


def test_provenance_that_parts_have_in_common_is_shown_once() -> None:
    same = both()
    for part in same.values():
        part["lineage"] = {"versions": {"ray": "2.60.0"}}
    html = builder.to_html(same).decode()
    assert html.count("2.60.0") == 1
    assert "Versions (evaluate and predict)" in html


def test_provenance_tells_flags_at_their_defaults_from_others() -> None:
    part = evaluation()
    flags = {"out": "runs", "data": "x", "quiet": False, "verbose": True, "limit": 0, "model": None}
    part["lineage"] = {"configuration of this job": flags, "model": {"tta": False, "fold": 1}}
    first, second = provenance_facts({"evaluate": part})
    assert first.known == {"out": "runs", "data": "x", "verbose": True}
    assert first.defaults == {"quiet": False, "limit": 0}
    assert (second.known, second.defaults) == ({"fold": 1}, {"tta": False})


def test_provenance_shows_the_length_of_a_list_and_its_first_values() -> None:
    part = evaluation()
    part["lineage"] = {"data": {"pictures": 3, "a": list("vwxyz"), "b": [], "c": None}}
    text = Tags(builder.to_html({"evaluate": part}).decode()).text
    for words in ("images|3|", "a|5: v, w, x, y \N{HORIZONTAL ELLIPSIS}|", "b|none|"):
        assert words in text, words
    assert "|c|" not in text
