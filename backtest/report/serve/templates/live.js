(() => {
  const EVERY = 2000;
  const PATIENCE = 5;
  const at = (name) => document.getElementById(name);
  const whole = (value) => Number(value).toLocaleString("en");
  const number = (value) => (typeof value !== "number" ? String(value)
    : Number.isInteger(value) ? whole(value) : Number(value.toPrecision(5)).toLocaleString("en", { maximumSignificantDigits: 5 }));
  const time = (seconds) => (seconds < 90 ? `${Math.round(seconds)} s`
    : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);
  const words = {
    running: "Running: this page asks for news every two seconds.",
    finished: "Finished.",
    stopped: "Not running: it was stopped before its end. Go on with it by --resume, then load this page again.",
  };
  const stages = { search: "searching", neighbour: "evaluating neighbors", part: "evaluating parts of the time" };
  let missed = 0;

  const draw = (now) => {
    const points = now.points;
    const space = at("path");
    space.replaceChildren();
    at("low").textContent = "";
    at("high").textContent = "";
    if (!points.length) return;
    const scores = points.map(([, score]) => score);
    const [low, high] = [Math.min(...scores), Math.max(...scores)];
    const x = (sets) => (1000 * sets) / Math.max(now.sets, 1);
    const y = (score) => (high > low ? 210 - (200 * (score - low)) / (high - low) : 110);
    const steps = points.map(([sets, score], place) => (place
      ? `H${x(sets).toFixed(1)}V${y(score).toFixed(1)}` : `M${x(sets).toFixed(1)} ${y(score).toFixed(1)}`));
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", `${steps.join("")}H1000`);
    space.append(path);
    at("low").textContent = `${number(low)} after ${whole(points[0][0])}`;
    at("high").textContent = `${number(high)} after ${whole(points[points.length - 1][0])} of ${whole(now.sets)}`;
  };
  const list = (values) => {
    at("values").replaceChildren(...Object.entries(values).map(([name, value]) => {
      const tr = document.createElement("tr");
      const head = document.createElement("th");
      const cell = document.createElement("td");
      head.scope = "row";
      head.textContent = name;
      cell.className = "number";
      cell.textContent = number(value);
      tr.append(head, cell);
      return tr;
    }));
  };
  const show = (now) => {
    at("state").textContent = words[now.state];
    at("state").classList.toggle("going", now.state !== "stopped");
    at("sets").textContent = whole(now.sets);
    at("of").textContent = now.asked ? `of ${whole(now.asked)} asked for` : "";
    at("rate").textContent = `${number(Number(now.rate.toPrecision(3)))} / s`;
    const left = now.asked && now.rate > 0 ? (now.asked - now.sets) / now.rate : 0;
    at("time").textContent = `${time(now.seconds)} of work`
      + (now.state === "running" && left > 0 ? `, ${time(left)} left` : "");
    at("best").textContent = now.best ? number(Number(now.best.score.toPrecision(4))) : "none yet";
    at("objective").textContent = `${now.objective}, larger is better`;
    at("failed").textContent = whole(now.failed);
    at("stage").textContent = now.state === "running" ? stages[now.stage] || "" : "";
    const bar = at("bar");
    bar.hidden = !now.asked || now.state !== "running";
    bar.value = now.asked ? Math.min(now.sets / now.asked, 1) : 0;
    bar.setAttribute("aria-label", "Part of the sets that is evaluated");
    at("report").textContent = now.state === "finished" ? "Read the report" : "Report of what there is so far";
    draw(now);
    list(now.best ? now.best.values : {});
    document.documentElement.dataset.state = now.state;
  };
  const ask = async () => {
    if (document.hidden) { setTimeout(ask, EVERY); return; }
    try {
      const answer = await fetch(data.progress, { cache: "no-store" });
      const now = await answer.json();
      if (!answer.ok) {
        at("state").textContent = now.error;
        document.documentElement.dataset.state = "damaged";
        return;
      }
      missed = 0;
      show(now);
      if (now.state !== "running") return;
    } catch (error) {
      missed += 1;
      at("state").textContent = "The server does not answer.";
      if (missed >= PATIENCE) {
        at("state").textContent = "The server does not answer: start it, then load this page again.";
        document.documentElement.dataset.state = "lost";
        return;
      }
    }
    setTimeout(ask, EVERY);
  };
  show(data.now);
  if (data.now.state === "running") setTimeout(ask, EVERY);
})();
