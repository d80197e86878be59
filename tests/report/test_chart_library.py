"""The part of Plotly that pages embed; a bundle of an unknown shape stays whole."""

from importlib import resources

import pytest

from backtest.report.chart_library import (
    enclose_module,
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


def test_the_library_of_pages_is_under_a_third_of_the_whole():
    whole = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")
    assert len(read_library()) < len(whole) / 3
    assert read_library().startswith(whole[:100])  # the license stays
