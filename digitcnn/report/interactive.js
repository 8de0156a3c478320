// Interactive maps of chapter 4: hovering shows the digit, the legend isolates a class.
// digitcnnHover.share() takes what all maps of a page need, digitcnnHover.show() makes a map.
window.digitcnnHover = window.digitcnnHover || (() => {
  const COLOURS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd",
    "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"];
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const shared = {};

  function share(name, about) {  // a data set: title, colour, labels, said (by model), sprite
    const sprite = new Image();
    sprite.src = about.sprite;
    shared[name] = { ...about, image: sprite, labels: bytes(about.labels), said: {} };
    for (const model in about.said) shared[name].said[model] = bytes(about.said[model]);
  }

  const wrong = sample => sample.said !== sample.label;

  function add(parent, tag, className, text) {
    const element = parent.appendChild(document.createElement(tag));
    element.className = className;
    if (text) element.textContent = text;
    return element;
  }

  function show(root, spec) {
    const samples = spec.data.flatMap(name => Array.from(shared[name].labels,
      (label, at) => ({ set: name, at, label, said: shared[name].said[spec.model][at] })));
    const order = samples.map((_, i) => i);  // a fixed shuffle: no class lies on top of the others
    for (let i = order.length - 1, seed = 1; i > 0; i--) {
      seed = (seed * 48271) % 2147483647;
      const j = seed % (i + 1);
      [order[i], order[j]] = [order[j], order[i]];
    }
    const groups = [COLOURS.map((c, k) => ({ name: `${k}`, colour: c, test: s => s.label === k }))];
    if (spec.data.length > 1) groups.push(spec.data.map(name =>
      ({ name: shared[name].title, colour: shared[name].colour, test: s => s.set === name })));
    groups.push([{ name: "misclassified", colour: "", test: wrong }]);
    const chosen = groups.map(() => null);
    const visible = i => chosen.every(item => !item || item.test(samples[i]));
    const colour = { class: s => COLOURS[s.label], prediction: s => COLOURS[s.said],
      data: s => shared[s.set].colour };
    let current = -1, owner = null;  // the sample that is shown, and the map that chose it

    const row = add(root, "div", "hover-panels"), legend = add(root, "div", "hover-legend");
    const tip = add(root, "div", "hover-tip");
    const picture = add(tip, "canvas", ""), words = add(tip, "span", "");
    tip.setAttribute("role", "status");
    tip.hidden = true;
    picture.width = picture.height = 72;

    const panels = spec.panels.map(panel => {
      const box = add(row, "div", "hover-panel");
      add(box, "div", "hover-title", panel.title);
      const canvas = add(box, "canvas", "");
      canvas.tabIndex = 0;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${panel.title}: map of ${samples.length} samples. ` +
        "The arrow keys step through the misclassified ones, Escape leaves them.");
      const [points, spots] = [panel.xy, panel.places].map(t => new Uint16Array(bytes(t).buffer));
      return { ...panel, canvas, points, spots, base: document.createElement("canvas") };
    });

    const place = (panel, pairs, i) => [0, 1].map(k =>  // y points upwards in the map
      (0.02 + 0.96 * Math.abs(k - pairs[2 * i + k] / 65535)) * panel.side);

    function paint(panel) {  // the map without the current sample, kept for hovering
      const ratio = window.devicePixelRatio || 1, side = panel.canvas.clientWidth;
      if (!side) return;
      panel.side = side;
      for (const canvas of [panel.canvas, panel.base]) canvas.width = canvas.height = side * ratio;
      const pen = panel.base.getContext("2d"), ink = getComputedStyle(root).color;
      const dot = samples.length > 3000 ? 1.8 : 4;
      pen.scale(ratio, ratio);
      for (const lit of [false, true]) for (const i of order) if (visible(i) === lit) {
        const [x, y] = place(panel, panel.points, i);
        pen.globalAlpha = lit ? 0.8 : 0.06;
        pen.fillStyle = lit ? colour[panel.colour](samples[i]) : ink;
        pen.fillRect(x - dot / 2, y - dot / 2, dot, dot);
      }
      pen.globalAlpha = 1;
      pen.strokeStyle = ink;
      if (spec.errors) for (const i of order) if (visible(i) && wrong(samples[i])) {
        const [x, y] = place(panel, panel.points, i);
        pen.stroke(new Path2D(`M${x - 2.5} ${y - 2.5}l5 5m0 -5l-5 5`));
      }
      Object.assign(pen, { font: "bold 15px sans-serif", textAlign: "center", textBaseline: "middle",
        lineWidth: 3, strokeStyle: "#fff", fillStyle: "#000" });
      panel.names.forEach((name, i) => {  // class names at the clusters
        if (chosen[0] && chosen[0].name !== `${name}`) return;
        const at = place(panel, panel.spots, i);
        pen.strokeText(name, ...at);
        pen.fillText(name, ...at);
      });
      refresh(panel);
    }

    function refresh(panel) {
      const pen = panel.canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
      pen.setTransform(1, 0, 0, 1, 0, 0);
      pen.clearRect(0, 0, panel.canvas.width, panel.canvas.height);
      pen.drawImage(panel.base, 0, 0);
      if (current < 0 || !panel.side) return;
      pen.scale(ratio, ratio);
      pen.lineWidth = 2;
      pen.strokeStyle = getComputedStyle(root).color;
      pen.beginPath();
      pen.arc(...place(panel, panel.points, current), 6, 0, 7);
      pen.stroke();
    }

    function select(i, panel) {
      [current, owner] = [i, panel];
      panels.forEach(refresh);
      tip.hidden = i < 0;
      if (i < 0) return;
      const { set, at, label, said } = samples[i], { image, columns, tile, title } = shared[set];
      const from = [(at % columns) * tile, Math.floor(at / columns) * tile];
      picture.getContext("2d").drawImage(image, ...from, tile, tile, 0, 0, 72, 72);
      words.textContent = `${title} digit ${label}, read as ${said}`;
      tip.classList.toggle("hover-wrong", wrong(samples[i]));
      const [x, y] = place(panel, panel.points, i), { offsetLeft, offsetTop } = panel.canvas;
      const above = y > panel.side / 2;  // the tip stays within the figure
      tip.style.left = `${Math.min(offsetLeft + x + 14, root.clientWidth - tip.offsetWidth)}px`;
      tip.style.top = `${offsetTop + y + (above ? -14 - tip.offsetHeight : 14)}px`;
    }

    for (const panel of panels) {
      const point = event => {
        const frame = panel.canvas.getBoundingClientRect();
        const x = event.clientX - frame.left, y = event.clientY - frame.top;
        let best = -1, reach = event.pointerType === "touch" ? 900 : 144;  // pixels, squared
        for (const i of order) if (visible(i)) {
          const at = place(panel, panel.points, i), distance = (at[0] - x) ** 2 + (at[1] - y) ** 2;
          if (distance < reach) [best, reach] = [i, distance];
        }
        if (best !== current) select(best, panel);
      };
      panel.canvas.addEventListener("pointermove", point);
      panel.canvas.addEventListener("pointerdown", point);
      const leave = event => {  // a finger is lifted to read what it has touched
        if (owner === panel && event.pointerType !== "touch") select(-1, panel);
      };
      panel.canvas.addEventListener("pointerleave", leave);
      panel.canvas.addEventListener("blur", leave);
      panel.canvas.addEventListener("keydown", event => {
        if (event.key === "Escape") select(-1, panel);
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        const seen = [...samples.keys()].filter(visible), errors = seen.filter(i => wrong(samples[i]));
        const stops = errors.length ? errors : seen;
        const at = stops.indexOf(current), count = stops.length;
        if (count) select(stops[(at < 0 && step < 0 ? count - 1 : at + step + count) % count], panel);
      });
    }

    groups.forEach((group, g) => {
      const buttons = group.map(item => {
        const button = add(legend, "button", "", item.name);
        button.type = "button";
        button.setAttribute("aria-pressed", "false");
        if (item.colour) button.style.setProperty("--dot", item.colour);
        button.addEventListener("click", () => {
          chosen[g] = chosen[g] === item ? null : item;
          buttons.forEach((b, k) => b.setAttribute("aria-pressed", chosen[g] === group[k]));
          select(-1, panels[0]);
          panels.forEach(paint);
        });
        return button;
      });
      add(legend, "span", "hover-gap");
    });

    const figure = root.closest("figure");
    if (figure) figure.classList.add("hover-live");  // the static picture then shows in print only
    const all = () => panels.forEach(paint);
    new ResizeObserver(all).observe(row);
    new MutationObserver(all).observe(document.body, { attributeFilter: ["class"] });
  }
  return { share, show };
})();
