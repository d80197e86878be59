"""What is wrong with the layout of a page in a browser: overlaps, overflow, cuts, empty halves."""

from typing import Any

SCRIPT = """
() => {
  const faults = [];
  const isShown = (each) => each.getClientRects().length > 0
    && getComputedStyle(each).visibility !== "hidden";
  const boxOf = (each) => each.getBoundingClientRect();
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
    && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const name = (each) => each.id || each.className.baseVal || each.className || each.tagName;

  // overflow: the page, and texts beyond their boxes
  const wide = document.documentElement.scrollWidth - window.innerWidth;
  if (wide > 0) faults.push(`the page is ${wide} pixels too wide`);
  document.querySelectorAll("h1, h2, h3, p, li, dt, dd, figcaption, button").forEach((each) => {
    const isWide = each.clientWidth > 0 && each.scrollWidth > each.clientWidth + 2;
    if (isWide && isShown(each) && !each.closest(".unseen")) {
      faults.push(`${name(each)} overflows: ${each.textContent.slice(0, 40)}`);
    }
  });

  // columns that a wide page hides, although there is room below what stands beside their table
  document.querySelectorAll("main .scroll").forEach((box) => {
    const isCut = window.innerWidth >= 1000 && box.scrollWidth > box.clientWidth + 2;
    if (isCut && isShown(box) && !box.closest("details, .ledger")) {
      faults.push(`columns are cut: ${box.getAttribute("aria-label")}`);
    }
  });

  // overlap: labels of one axis, and names of lines and spans, of each chart
  document.querySelectorAll("[data-chart]").forEach((chart) => {
    if (!chart.layout) return;
    const groups = new Map();
    const ticks = ["x", "y", "y2", "y3", "y4", "y5", "y6"].map((axis) => `.${axis}tick text`);
    chart.querySelectorAll(ticks.join(", ")).forEach((text) => {
      const key = text.parentElement.getAttribute("class");
      groups.set(key, [...(groups.get(key) || []), text]);
    });
    // numbers at the ends of bars, beside the labels of the bars
    const bars = [...chart.querySelectorAll(".bartext")].filter(isShown).map(boxOf);
    const labels = [...chart.querySelectorAll(".ytick text")].filter(isShown).map(boxOf);
    if (bars.some((box) => labels.some((label) => meet(box, label)))) {
      faults.push(`${chart.dataset.chart}: numbers of bars overlap their labels`);
    }
    // names of a legend, beside the titles of panels
    const names = [...chart.querySelectorAll(".legendtext")].filter(isShown).map(boxOf);
    const titles = [...chart.querySelectorAll(".annotation-text")].filter(isShown).map(boxOf);
    if (names.some((box) => titles.some((title) => meet(box, title)))) {
      faults.push(`${chart.dataset.chart}: the legend overlaps a title`);
    }
    groups.set("annotations", [...chart.querySelectorAll(".annotation-text")]);
    groups.forEach((texts, key) => {
      const boxes = texts.filter(isShown).map(boxOf);
      boxes.forEach((box, k) => boxes.slice(k + 1).forEach((other) => {
        if (meet(box, other)) faults.push(`${chart.dataset.chart}: ${key} overlap`);
      }));
    });
  });

  // empty halves: sections of a wide page whose content ends in its left half
  if (window.innerWidth >= 1000) {
    const main = boxOf(document.querySelector("main"));
    const half = main.left + main.width / 2;
    document.querySelectorAll("main > section, main > .halves").forEach((section) => {
      if (section.querySelector("details.fold")) return;
      const parts = [...section.querySelectorAll("table, .chart, .text, p, pre")]
        .filter((each) => isShown(each) && !each.closest(".unseen"));
      const right = Math.max(...parts.map((each) => boxOf(each).right));
      if (parts.length && right < half) faults.push(`${name(section)} is empty in its right half`);
    });
  }
  return [...new Set(faults)];
}
"""


def list_faults(page: Any) -> list[str]:
    """Return the faults of an open page, each once, in sentences."""
    faults: list[str] = page.evaluate(SCRIPT)
    return faults
