"use strict";
const content = JSON.parse(document.getElementById("content").textContent);
const INK = "#222222", PALE = "#8a8f98";
const CONFIG = {responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"]};
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
// Inside the MLflow UI the page is a blob of that server, whatever its address is seen from here.
const framed = location.protocol === "blob:";
const server = framed ? new URL(location.pathname).origin : content.server;
const plots = [];

const text = value => String(value).replace(/[&<>]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;"})[c]);
const number = (value, digits, unit = "") => value === undefined ? "–" : value.toFixed(digits) + unit;
const against = lost => lost === undefined ? "" : ` (${lost > 0 ? "−" : "+"}${Math.abs(lost).toFixed(2)})`;
const address = trial => trial.run && `${server}/${trial.run}`;

function facts(id) {
  const trial = content.trials[id];
  const repeated = trial.mean === undefined ? [] : [`other seeds ${number(trial.mean, 2)} ± ${number(trial.std, 2)} %`];
  const tested = trial.test === undefined ? [] : [`test ${number(trial.test, 2, " %")}`];
  return [
    trial.hyperparameters,
    [`accuracy ${number(trial.accuracy, 2, " %")}${against(trial.lost)}`, ...tested, ...repeated].join(" · "),
    `CR-P ${number(trial.cr_p, 1, " %")} · CR-F ${number(trial.cr_f, 1, " %")}`,
    `throughput ${number(trial.speedup, 2, "×")} (${Math.round(trial.throughput).toLocaleString("en")} images/s)`,
    [trial.ranks, trial.seed === undefined ? "" : `seed ${trial.seed}`].filter(Boolean).join(" · "),
  ].filter(Boolean);
}

function hover(id) {
  const trial = content.trials[id];
  const lines = [`<b>trial ${id} · ${text(trial.method)}</b>`, ...facts(id).map(text)];
  return [...lines, ...(trial.run ? ["<i>click for its run in MLflow</i>"] : [])].join("<br>");
}

function layout(extra) {
  const axis = {gridcolor: "#e6e8eb", linecolor: "#c9cdd3", zeroline: false, automargin: true};
  const {xaxis, yaxis, ...rest} = extra;
  return {
    font: {family: FONT, size: 13, color: INK}, margin: {l: 10, r: 10, t: 14, b: 10}, plot_bgcolor: "white",
    showlegend: false, hovermode: "closest",
    hoverlabel: {bgcolor: "white", bordercolor: "#c9cdd3", font: {color: INK}, align: "left"},
    xaxis: {...axis, ...xaxis}, yaxis: {...axis, ...yaxis}, ...rest,
  };
}

function draw(parent, size, title, traces, extra) {
  const frame = document.createElement("section");
  if (title) frame.appendChild(document.createElement("h3")).textContent = title;
  const plot = frame.appendChild(document.createElement("div"));
  plot.className = `plot ${size}`;
  parent.appendChild(frame);
  Plotly.newPlot(plot, traces, layout(extra), {...CONFIG, displayModeBar: size ? false : "hover"});
  plots.push(plot);
  return plot;
}

const ids = points => points.map(([id]) => id);

function markers(points, method, pareto) {
  const chosen = points.filter(([id]) => content.trials[id].method === method && content.trials[id].pareto === pareto);
  return {
    x: chosen.map(p => p[1]), y: chosen.map(p => p[2]), customdata: ids(chosen), text: ids(chosen).map(hover),
    mode: "markers", meta: method, hovertemplate: "%{text}<extra></extra>",
    marker: {color: content.colours[method], size: pareto ? 12 : 8, opacity: pareto ? 1 : .3,
             line: {color: "white", width: pareto ? 1 : 0}},
  };
}

function whiskers(panel, method) {
  const known = panel.repeated.filter(([id]) => content.trials[id].method === method);
  const colour = content.colours[method];
  return {
    x: known.map(p => p[1]), y: known.map(p => p[2]), meta: method, mode: "markers", hoverinfo: "skip",
    marker: {symbol: "line-ew", size: 9, color: colour, line: {color: colour, width: 2}},
    error_y: {type: "data", array: known.map(p => p[3]), color: colour, thickness: 2, width: 0},
  };
}

function drawPanel(panel) {
  const traces = [{x: panel.line.map(p => p[0]), y: panel.line.map(p => p[1]), mode: "lines", hoverinfo: "skip",
                   line: {color: PALE, width: 1.6}}];
  for (const method of Object.keys(content.colours)) {
    traces.push(markers(panel.points, method, false), whiskers(panel, method), markers(panel.points, method, true));
  }
  if (panel.dense) {
    traces.push({x: [panel.dense[0]], y: [panel.dense[1]], mode: "markers",
                 hovertemplate: "<b>dense network</b><extra></extra>",
                 marker: {symbol: "star", size: 17, color: INK, line: {color: "white", width: 1}}});
  }
  draw(document.getElementById("panels"), "", "", traces,
       {xaxis: {title: {text: panel.x}, nticks: 8}, yaxis: {title: {text: panel.y}, range: panel.range}});
}

function drawCourse() {
  const volumes = content.hypervolumes;
  draw(document.getElementById("search"), "small", "Hypervolume of the front", [{
    x: volumes.map((_, i) => i + 1), y: volumes, mode: volumes.length > 1 ? "lines" : "markers",
    line: {color: INK, width: 1.8, shape: "hv"},
    hovertemplate: "after %{x} trials: %{y:.4f}<extra></extra>",
  }], {xaxis: {title: {text: "trials that ended"}}, yaxis: {rangemode: "tozero"}});
}

function drawImportances() {
  const shades = [INK, PALE, "#c9cdd3", "#56B4E9", "#E69F00"];
  for (const [group, objectives] of Object.entries(content.importances)) {
    const names = Object.keys(Object.values(objectives)[0]).reverse();
    const traces = Object.entries(objectives).map(([objective, shares], i) => ({
      type: "bar", orientation: "h", name: objective === "flops" ? "FLOPs" : text(objective),
      y: names.map(text), x: names.map(name => 100 * shares[name]), marker: {color: shades[i % shades.length]},
      hovertemplate: "%{y}: %{x:.0f} %<extra>%{fullData.name}</extra>",
    }));
    draw(document.getElementById("search"), "small", `What decides, ${group}`, traces, {
      xaxis: {title: {text: "importance, %"}, range: [0, 100]}, yaxis: {type: "category"},
      showlegend: true, legend: {orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal"},
    });
  }
}

function drawCoordinates(method, {axes, lines}) {
  const traces = [false, true].map(pareto => {
    const chosen = lines.filter(([id]) => content.trials[id].pareto === pareto);
    const each = value => chosen.flatMap(([id, places]) => [...places.map((place, i) => value(id, place, i)), null]);
    return {
      x: each((id, place, i) => i), y: each((id, place) => place), customdata: each(id => id), text: each(hover),
      mode: "lines+markers", meta: method, opacity: pareto ? 1 : .25, hovertemplate: "%{text}<extra></extra>",
      line: {color: content.colours[method], width: pareto ? 2 : 1.2},
      marker: {color: content.colours[method], size: pareto ? 5 : 3},
    };
  });
  const ticks = axes.flatMap(({ticks}, i) => ticks.map(([y, label]) => ({
    x: i, y, text: text(label), showarrow: false, xanchor: i ? "right" : "left", xshift: i ? -5 : 5,
    font: {size: 11, color: "#556"}, bgcolor: "rgba(255,255,255,.75)",
  })));
  // Titles take turns above and below, so that they have room on a narrow screen too.
  const titles = axes.map(({title}, i) => ({
    x: i, y: i % 2 ? 1.06 : -.06, yanchor: i % 2 ? "bottom" : "top", text: text(title), showarrow: false,
    xanchor: i === 0 ? "left" : i === axes.length - 1 ? "right" : "center",
  }));
  const lineAt = i => ({type: "line", x0: i, x1: i, y0: 0, y1: 1, line: {color: "#c9cdd3", width: 1}, layer: "below"});
  draw(document.getElementById("coordinates"), "small", method, traces, {
    annotations: [...ticks, ...titles], shapes: axes.map((_, i) => lineAt(i)),
    xaxis: {visible: false, range: [-.1, axes.length - .9], fixedrange: true},
    yaxis: {visible: false, range: [-.2, 1.2], fixedrange: true},
  });
}

function showChosen(id) {
  const trial = content.trials[id], box = document.getElementById("chosen");
  box.replaceChildren();
  box.hidden = false;
  const add = (tag, words) => Object.assign(box.appendChild(document.createElement(tag)), {textContent: words});
  add("b", `trial ${id} · ${trial.method}`);
  facts(id).forEach(line => add("p", line));
  if (!trial.run) return;
  const link = add("a", "its run in MLflow");
  Object.assign(link, {href: address(trial), target: "_blank", rel: "noopener"});
  if (framed) {
    link.textContent = "its run in MLflow: right-click, open in a new tab; or copy";
    const field = add("input", "");
    Object.assign(field, {value: address(trial), readOnly: true, onclick: () => field.select()});
    field.setAttribute("aria-label", "address of the run");
  } else if (content.local) {
    add("p", "The link works while “lrsearch ui” runs on this machine.");
  }
}

// A trial under the pointer stands out in the other panels too.
function link(plot, panels) {
  plot.on("plotly_hover", ({points: [point]}) => {
    for (const other of panels) {
      if (other === plot || point.customdata === undefined) continue;
      for (const [curveNumber, trace] of other.data.entries()) {
        const pointNumber = (trace.customdata || []).indexOf(point.customdata);
        if (pointNumber >= 0 && trace.visible !== false) Plotly.Fx.hover(other, [{curveNumber, pointNumber}]);
      }
    }
  });
  plot.on("plotly_unhover", () => panels.forEach(other => other !== plot && Plotly.Fx.unhover(other)));
  plot.on("plotly_click", ({points: [point]}) => point.customdata !== undefined && showChosen(point.customdata));
}

content.panels.forEach(drawPanel);
const panels = [...plots];
drawCourse();
drawImportances();
Object.entries(content.coordinates).forEach(([method, lines]) => drawCoordinates(method, lines));
plots.filter(plot => plot.data[0].meta || panels.includes(plot)).forEach(plot => link(plot, panels));
document.querySelector(".repeated").hidden = !content.panels.some(panel => panel.repeated.length);
document.querySelectorAll("a[data-run]").forEach(a => { a.href = `${server}/${a.dataset.run}`; });

for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", shown);
    for (const plot of plots) {
      const traces = plot.data.map((trace, i) => trace.meta === button.dataset.method ? i : -1).filter(i => i >= 0);
      if (traces.length) Plotly.restyle(plot, {visible: shown}, traces);
    }
  });
}

// Each plot was drawn before the next one took its share of the row.
const resized = new ResizeObserver(entries => entries.forEach(entry => Plotly.Plots.resize(entry.target)));
plots.forEach(plot => resized.observe(plot));
// Paper has its own width, which pictures learn of too late unless the screen takes it first.
addEventListener("beforeprint", () => {
  document.body.classList.add("paper");
  plots.forEach(plot => Plotly.relayout(plot, {width: plot.clientWidth, height: plot.clientHeight}));
});
addEventListener("afterprint", () => {
  document.body.classList.remove("paper");
  plots.forEach(plot => Plotly.relayout(plot, {width: undefined, height: undefined, autosize: true}));
});
