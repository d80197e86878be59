"""The part of Plotly that pages embed; a bundle of an unknown shape stays whole."""

from importlib import resources

import pytest

from backtest.report.chart_library import (
    COMPONENTS,
    drop_components,
    enclose_module,
    enclose_whole,
    find_kind,
    read_library,
    split_modules,
    trim_library,
)

BUNDLE = (
    '(()=>{var W=(e,t)=>()=>(t||e((t={exports:{}}).exports,t),t.exports);'
    'var bar=W((a,b)=>{b.exports={moduleType:"trace",name:"bar",draw:axes()}});'
    'var listed=W((a,b)=>{"use strict";b.exports=bar()});'
    'var heat=W((a,b)=>{b.exports={moduleType:"trace",name:"heatmap",draw:axes()}});'
    'var globe=W((a,b)=>{b.exports={moduleType:"trace",name:"globe",draw:sphere()}});'
    'var axes=W(a=>{a.x=1});'
    'var sphere=W(()=>{});var other=2;'
    'var far=W(()=>{});'
    'var index=W((a,b)=>{core.register([listed(),heat(),globe()]);b.exports=core});'
    "return index();})();"
)  # fmt: skip
"""A bundle as esbuild makes one: modules that run when they are called, and a list of kinds."""


@pytest.fixture(autouse=True)
def few_modules(monkeypatch):
    monkeypatch.setattr("backtest.report.chart_library.MANY", 3)


def test_a_bundle_keeps_the_kinds_that_pages_draw_and_what_they_call():
    trimmed = trim_library(BUNDLE)
    assert ".register([listed(),heat()])" in trimmed
    assert [*split_modules(trimmed)] == ["", "bar", "listed", "heat", "axes", "sphere", "index"]


def test_a_statement_after_a_module_is_kept_with_it():
    assert "var sphere=W(()=>{});var other=2;" in trim_library(BUNDLE)


def test_modules_alone_are_enclosed_so_that_an_engine_compiles_them_when_it_reads_them():
    trimmed = trim_library(BUNDLE)
    assert "var axes=W((a=>{a.x=1}));" in trimmed
    assert 'var listed=W(((a,b)=>{"use strict";b.exports=bar()}));' in trimmed


def test_a_module_that_shares_its_text_with_another_is_not_enclosed():
    shared = "var a=W(()=>{});var x,b=V(()=>{x=1});"
    assert enclose_module(shared) == shared


def test_components_that_no_page_draws_leave_the_list():
    """A bundle that describes one of those that pages draw in another way keeps its list."""
    names = [*COMPONENTS, "sliders"]
    pieces = {f"m{i}": f'{{moduleType:"component",name:"{names[i]}"}}' for i in range(len(names))}
    calls = ",".join(f"{name}()" for name in pieces)
    pieces["core"] = f"add([{calls}]);add([m0(),m1()]);"

    assert drop_components(pieces)["core"] == f"add([{calls[:-5]}]);add([m0(),m1()]);"
    changed = {**pieces, "m3": "{name:o.name}"}
    assert drop_components(changed) == changed


def test_the_functions_around_all_modules_are_enclosed_too():
    whole = (
        '(function(root, make) {}(this, () => {\n"use strict";var Plotly=(()=>{return 1})();'
        "return Plotly;\n}));"
    )
    assert enclose_whole(whole) == (
        '(function(root, make) {}(this, (function() {\n"use strict";'
        "var Plotly=(function(){return 1})();return Plotly;\n})));"
    )
    assert enclose_whole(whole + whole) == whole + whole


def test_the_library_of_pages_has_neither_sliders_nor_street_maps():
    library = read_library()
    assert 'name:"legend",layoutAttributes' in library
    for lost in ('name:"rangeselector",schema', 'name:"images",layoutAttributes', "maplibregl-map"):
        assert lost not in library
    assert "var Plotly=(function(){" in library


def test_a_kind_is_found_through_the_module_that_hands_it_on():
    assert find_kind(split_modules(BUNDLE), "listed") == "bar"
    assert find_kind(split_modules(BUNDLE), "axes") == ""


@pytest.mark.parametrize(
    "text",
    [
        "var Plotly={};",
        BUNDLE.replace(".register([", ".enlist(["),
        BUNDLE.replace('name:"heatmap"', 'name:"carpet"'),
        BUNDLE.replace("draw:sphere()", "draw:1") + ".register([bar()])",
        BUNDLE.replace("var axes=W(a=>{a.x=1});", "var axes=V(a=>{a.x=1});"),
    ],
)
def test_a_bundle_of_another_shape_stays_whole(text):
    assert trim_library(text) == text


def test_the_library_of_pages_is_under_a_quarter_of_the_whole():
    whole = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")
    assert len(read_library()) < len(whole) / 4
    assert read_library().startswith(whole[:100])  # the license stays
