// ------------------------------------------------------------------ theme
const button = document.getElementById("theme");
const label = () => { button.textContent = isDark() ? "Light" : "Dark"; };
button.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  label();
  drawAgain();
});
system.addEventListener("change", () => { label(); drawAgain(); });
button.hidden = false;
label();

// ------------------------------------------------------- width and paper
let width = window.innerWidth;
let waiting = 0;
window.addEventListener("resize", () => {
  if (window.innerWidth === width || printing) return;
  width = window.innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(() => { drawAgain(); explorers.forEach((show) => show()); }, 150);
});
let theme = root.dataset.theme;
window.addEventListener("beforeprint", () => {
  printing = true; theme = root.dataset.theme; root.dataset.theme = "light";
  document.querySelectorAll("#equity").forEach((each) => each.after(...document.querySelectorAll("#payoff")));
  charts.forEach(draw);
});
window.addEventListener("afterprint", () => {
  printing = false; root.dataset.theme = theme;
  document.querySelectorAll("#payoff").forEach((each) => each.after(...document.querySelectorAll("#equity")));
  drawAgain();
});

document.querySelectorAll("details").forEach((fold) => fold.addEventListener("toggle", () => {
  if (fold.open) charts.filter((box) => fold.contains(box)).forEach(draw);
}));
const arrivals = new IntersectionObserver((entries) => entries.forEach(({ isIntersecting, target }) => {
  if (isIntersecting && (!target.layout || stale.has(target))) draw(target);
}), { rootMargin: `${ahead}px` });
const sketched = 3; // a screen shows no more charts, and each that is sketched delays the last one
const start = async () => {
  charts.filter((box) => isInView(box)).slice(0, sketched).forEach(sketch);
  performance.mark("sketched");
  await new Promise((resume) => { requestAnimationFrame(() => setTimeout(resume)); }); // shown before the work
  if (document.readyState === "loading") {
    await new Promise((resume) => { document.addEventListener("DOMContentLoaded", resume); });
  }
  if (charts.length) await unpackLibrary();
  charts.filter((box) => isInView(box)).forEach(draw);
  root.dataset.ready = "yes";
  setTimeout(() => afterCharts.splice(0).forEach((work) => work()));
  charts.forEach((box) => arrivals.observe(box));
};
start().catch((error) => {
  root.dataset.ready = "failed";
  afterCharts.splice(0).forEach((work) => work());
  charts.forEach((box) => {
    box.style.minHeight = "0";
    box.textContent = `This chart could not be drawn (${error.message}); a browser of 2023 or later draws it.`;
  });
});
