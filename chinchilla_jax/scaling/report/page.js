// What a reader can ask of the page: which row a point of a figure is, what is shown, in what order.
//
// A group of marks with data-points="run 17 4" says that its marks are the rows run-17 and run-4 of
// tables of the page, in that order; data-lines says the same of lines, bands and labels, which come
// and go with their rows. All that is said of a point stands in its row: nothing is kept twice.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, text = "", attributes = {}) => {
    const node = document.createElement(tag);
    node.textContent = text; // never markup: names of runs are anybody's
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };

  // Numbers as the page writes them: 1.23M, 3e12, −0.83 %, 75 s, 0.51 (0.46 to 0.57).
  const UNITS = { k: 1e3, M: 1e6, B: 1e9, T: 1e12, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12,
    ms: 1e-3, min: 60, h: 3600 };
  const value = (text) => {
    const found = /^([-+]?[\d.]+(?:e[-+]?\d+)?) ?([a-zA-Z]*)/.exec(text.replace("\u2212", "-"));
    return found ? parseFloat(found[1]) * (UNITS[found[2]] ?? 1) : NaN;
  };
  const compare = (a, b) => a.localeCompare(b, undefined, { numeric: true });

  // Tables: a click on a head sorts by it, another one the other way, a third as it was.
  const sortable = (table) => {
    const body = table.tBodies[0];
    const original = [...body.rows];
    if (original.length < 3) return;
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      if (!head.textContent) return;
      const button = make("button", head.textContent, { type: "button" });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const order = { null: "ascending", ascending: "descending" }[head.getAttribute("aria-sort")];
        for (const other of heads) other.removeAttribute("aria-sort");
        if (!order) return body.append(...original);
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const cell = (row) => row.cells[column].textContent;
        const sorted = head.classList.contains("n")
          ? (a, b) => sign * (value(cell(a)) - value(cell(b)))
          : (a, b) => sign * compare(cell(a), cell(b));
        const known = (row) => head.classList.contains("n")
          ? !Number.isNaN(value(cell(row))) : cell(row) !== "";
        body.append(...original.filter(known).sort(sorted), ...original.filter((r) => !known(r)));
      });
    });
  };

  // Figures: points and lines with their rows.
  const points = []; // {mark, svg, row, x, y, frame}, x and y in the units of the SVG
  const lines = []; // {mark, rows}
  const marksOf = (group) => {
    const used = all("use", group);
    return used.length ? used : all("path, text", group).filter((mark) => !mark.closest("defs"));
  };
  const rowsOf = (text) => {
    const [kind, ...numbers] = text.split(" ");
    return numbers.map((number) => document.getElementById(`${kind}-${number}`));
  };
  const frameOf = (mark) => {
    const clip = mark.closest("[clip-path]")?.getAttribute("clip-path").match(/#([^)]+)/);
    const rect = clip && document.getElementById(clip[1])?.querySelector("rect");
    if (!rect) return null;
    const [x, y, width, height] = ["x", "y", "width", "height"].map((n) => +rect.getAttribute(n));
    return { left: x - 1, top: y - 1, right: x + width + 1, bottom: y + height + 1 };
  };
  const placeOf = (mark) => {
    if (mark.localName === "use") return [+mark.getAttribute("x"), +mark.getAttribute("y")];
    const box = mark.getBBox();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  const readFigure = (svg) => {
    for (const group of all("[data-points]", svg)) {
      const rows = rowsOf(group.dataset.points);
      const marks = marksOf(group);
      if (marks.length !== rows.length) continue; // a point less is better than a wrong one
      marks.forEach((mark, i) => {
        if (!rows[i]) return;
        const [x, y] = placeOf(mark);
        const frame = frameOf(mark);
        lines.push({ mark, rows: [rows[i]] });
        if (frame && (x < frame.left || x > frame.right || y < frame.top || y > frame.bottom)) return;
        points.push({ mark, svg, row: rows[i], x, y });
      });
    }
    for (const group of all("[data-lines]", svg)) {
      const rows = rowsOf(group.dataset.lines);
      const marks = rows.length === 1 ? [group] : marksOf(group);
      if (marks.length !== rows.length) continue;
      marks.forEach((mark, i) => rows[i] && lines.push({ mark, rows: [rows[i]] }));
    }
  };

  // The card beside a point, and rings around all points of its row.
  const card = make("div", "", { class: "card", role: "status" });
  card.hidden = true;
  let shown = null;
  let rings = [];
  const hide = () => {
    card.hidden = true;
    for (const ring of rings) ring.remove();
    shown?.row.classList.remove("lit");
    rings = [];
    shown = null;
  };
  const show = (point) => {
    if (point === shown) return;
    hide();
    if (!point) return;
    shown = point;
    const heads = all("thead th", point.row.closest("table"));
    const list = make("dl");
    heads.forEach((head, i) => {
      const text = point.row.cells[i].textContent;
      if (!text || text === "-") return;
      list.append(make("dt", head.textContent), make("dd", text));
    });
    card.replaceChildren(list, make("p", "click or Enter: its row"));
    card.hidden = false;
    const [x, y] = onScreen(point);
    const box = card.getBoundingClientRect();
    const width = document.documentElement.clientWidth;
    card.style.left = `${Math.max(4, Math.min(x + 14, width - box.width - 4))}px`;
    card.style.top = `${y + 14 + box.height < innerHeight ? y + 14 : Math.max(4, y - box.height - 14)}px`;
    point.row.classList.add("lit");
    rings = points.filter((other) => other.row === point.row && visible(other)).map((other) => {
      const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
      const looks = { cx: other.x, cy: other.y, r: 7, fill: "none", stroke: "#1a1a1a",
        "stroke-width": 1.6, "pointer-events": "none" };
      for (const [name, text] of Object.entries(looks)) ring.setAttribute(name, text);
      other.svg.append(ring);
      return ring;
    });
  };
  const onScreen = (point) => {
    const place = new DOMPoint(point.x, point.y).matrixTransform(point.svg.getScreenCTM());
    return [place.x, place.y];
  };
  const visible = (point) => !point.mark.closest(".off");
  const go = (row) => {
    location.hash = row.id; // so that Back returns to the figure
    row.scrollIntoView({ block: "center" });
    row.tabIndex = -1;
    row.focus({ preventScroll: true });
    hide();
  };

  const askable = (svg) => {
    const here = points.filter((point) => point.svg === svg).sort((a, b) => a.x - b.x || a.y - b.y);
    if (!here.length) return;
    const near = (event) => {
      const matrix = svg.getScreenCTM();
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
      let best = null;
      let least = (event.pointerType === "touch" ? 26 : 13) / matrix.a;
      for (const point of here) {
        const away = Math.hypot(point.x - at.x, point.y - at.y);
        if (away < least && visible(point)) [best, least] = [point, away];
      }
      return best;
    };
    svg.classList.add("asked");
    svg.tabIndex = 0;
    svg.setAttribute("role", "group");
    svg.setAttribute("aria-roledescription", "figure: arrow keys walk through its points");
    svg.addEventListener("pointermove", (event) => event.pointerType === "touch" || show(near(event)));
    svg.addEventListener("pointerleave", (event) => event.pointerType === "touch" || hide());
    svg.addEventListener("blur", hide);
    svg.addEventListener("click", (event) => {
      const point = near(event);
      // A finger has no way to point: its first touch shows, its second goes.
      if (point && (event.pointerType !== "touch" || point === shown)) go(point.row);
      else show(point);
    });
    svg.addEventListener("keydown", (event) => {
      const on = here.filter(visible);
      const at = on.indexOf(shown);
      const next = { ArrowRight: at + 1, ArrowLeft: at < 0 ? on.length - 1 : at - 1, Home: 0,
        End: on.length - 1 }[event.key];
      if (event.key === "Escape") return hide();
      if (event.key === "Enter" && shown) return go(shown.row);
      if (next === undefined || !on.length) return;
      event.preventDefault();
      svg.scrollIntoView({ block: "nearest" });
      show(on[(next + on.length) % on.length]);
    });
  };

  // What is switched on and off: the values of columns with data-switch.
  const off = new Map(); // name -> the values that are off
  const valuesOf = new Map(); // name -> its values
  const labels = new Map(); // row -> [[name, value], ...]
  for (const head of all("th[data-switch]")) {
    const name = head.dataset.switch;
    for (const row of head.closest("table").tBodies[0].rows) {
      const text = row.cells[head.cellIndex].textContent;
      if (!text) continue;
      labels.set(row, [...(labels.get(row) ?? []), [name, text]]);
      valuesOf.set(name, (valuesOf.get(name) ?? new Set()).add(text));
      off.set(name, new Set());
    }
  }
  const summary = make("summary");
  const refresh = () => {
    hide();
    for (const [row, said] of labels) {
      row.classList.toggle("off", said.some(([name, text]) => off.get(name).has(text)));
    }
    for (const line of lines) {
      line.mark.classList.toggle("off", line.rows.every((row) => row.classList.contains("off")));
    }
    const runs = all("tr[id^=run-]").length;
    const on = all("tr[id^=run-]:not(.off)").length; // a run of no budget is always shown
    const names = [...valuesOf].filter(([, values]) => values.size > 1).map(([name]) => `${name}s`);
    const left = on < runs ? `${on} of ${runs} runs are shown` : "all are shown";
    summary.textContent = `Show ${names.join(" and ")}: ${left}`;
    for (const button of all("button[aria-pressed]", switches)) {
      button.setAttribute("aria-pressed", !off.get(button.dataset.name).has(button.textContent));
    }
  };
  const switches = make("details", "", { class: "switches" });
  const choose = (values, name) => {
    const box = make("fieldset");
    const sorted = [...values].sort((a, b) => value(a) - value(b) || compare(a, b));
    box.append(make("legend", `${name}s`));
    const every = { all: [], none: sorted };
    for (const [text, gone] of Object.entries(every)) {
      const button = make("button", text, { type: "button" });
      button.addEventListener("click", () => { off.set(name, new Set(gone)); refresh(); });
      box.append(button);
    }
    for (const text of sorted) {
      const button = make("button", text, { type: "button", "aria-pressed": true, "data-name": name });
      button.addEventListener("click", () => {
        const gone = off.get(name);
        if (!gone.delete(text)) gone.add(text);
        refresh();
      });
      box.append(button);
    }
    return box;
  };

  all(".plot svg").forEach(readFigure);
  all(".plot svg").forEach(askable);
  all("table").forEach(sortable);
  document.body.append(card);
  addEventListener("scroll", () => { if (document.activeElement !== shown?.svg) hide(); },
    { passive: true, capture: true });
  const boxes = [...valuesOf].filter(([, values]) => values.size > 1)
    .map(([name, values]) => choose(values, name));
  if (boxes.length) {
    switches.append(summary, ...boxes);
    document.querySelector("nav").after(switches);
    refresh();
  }
})();
