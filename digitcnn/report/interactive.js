// Interactive maps of chapter 4: pointer, finger and arrow keys show a digit, the legend isolates a
// class. digitcnnMaps.share() takes what all maps of a page need, lay() the places of a map, and
// show() makes a figure of them live.
window.digitcnnMaps = window.digitcnnMaps || (() => {
  const SIDE = 72;  // pixels of the enlarged picture
  const MARK = 2.4;  // pixels of a misread sample, where these are marked
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  let common = {};
  const places = {};

  function share(about) {  // colours of the classes; by data set: title, colour, digits, sprite
    common = about;
    for (const set of Object.values(about.sets)) {
      const digits = new Uint16Array(bytes(set.digits).buffer);  // label, then what each model says
      set.label = Uint8Array.from(digits, d => d % 10);
      set.said = about.models.map((_, k) => Uint8Array.from(digits, d => Math.floor(d / 10 ** (k + 1)) % 10));
      set.pictured = new Uint16Array(bytes(set.at).buffer);
      set.image = Object.assign(new Image(), { src: set.sprite });
    }
  }
  const lay = (name, xy) => { places[name] = bytes(xy); };

  function add(parent, tag, className, text) {
    const element = parent.appendChild(document.createElement(tag));
    Object.assign(element, { className, textContent: text || "" });
    return element;
  }

  function samplesOf(model, sets) {  // one list for all panels of a map
    const k = common.models.indexOf(model);
    return sets.flatMap(name => {
      const set = common.sets[name], picture = new Map(Array.from(set.pictured, (at, i) => [at, i]));
      return Array.from(set.label, (label, at) => ({ set, label, said: set.said[k][at],
        wrong: set.said[k][at] !== label, picture: picture.has(at) ? picture.get(at) : -1 }));
    });
  }

  function show(spec) {
    const figure = document.getElementById(spec.figure), root = document.createElement("div");
    const image = figure && figure.querySelector("img, svg");
    if (!image) return;
    root.className = "hover-map";
    (image.closest("a") || image).before(root);
    figure.classList.add("hover-live");  // the static picture then shows in print only
    const rows = add(root, "div", "hover-panels"), legend = add(root, "div", "hover-legend");
    rows.style.setProperty("--columns", spec.columns);
    const tip = add(root, "div", "hover-tip"), picture = add(tip, "canvas", "");
    const words = add(tip, "span", "");
    tip.setAttribute("role", "status");
    tip.hidden = true;
    picture.width = picture.height = SIDE;
    const groups = [common.colours.map((colour, k) => ({ name: `${k}`, colour, test: s => s.label === k })),
      [{ name: "misread", test: s => s.wrong,
        colour: spec.panels.some(panel => panel.marked) && "currentColor" }]];
    const chosen = groups.map(() => null), known = {};
    const visible = s => chosen.every(item => !item || item.test(s));
    const paints = { class: s => common.colours[s.label], answer: s => common.colours[s.said],
      data: s => s.set.colour };
    let current = null, owner = null;  // the sample that is shown, and the map that chose it

    const panels = spec.panels.map(panel => {
      const samples = known[panel.map] = known[panel.map] || samplesOf(panel.model, panel.data);
      const box = add(rows, "div", "hover-panel");
      const title = add(box, "div", "hover-title", panel.title);
      if (panel.by === "data") for (const { colour, title: name } of panel.data.map(of => common.sets[of])) {
        add(title, "b", "", " ● ").style.color = colour;
        title.append(name);
      }
      const canvas = add(box, "canvas", "");
      canvas.tabIndex = 0;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${panel.title}: map of ${samples.length} images. ` +
        "The arrow keys step through misread ones, Escape leaves them.");
      const order = samples.map((_, i) => [(i * 48271) % 65537, i]).sort((a, b) => a[0] - b[0]);
      return { ...panel, samples, canvas, order: order.map(pair => pair[1]),  // none covers the rest
        xy: places[panel.map], base: document.createElement("canvas") };
    });
    const place = (panel, i) => [0, 1].map(k =>  // y points upwards in the map
      (0.02 + 0.96 * Math.abs(k - panel.xy[2 * i + k] / 255)) * panel.side);

    function paint(panel) {  // the map without the current sample, kept for hovering
      const ratio = window.devicePixelRatio || 1, side = panel.canvas.clientWidth;
      if (!side) return;
      panel.side = side;
      for (const canvas of [panel.canvas, panel.base]) canvas.width = canvas.height = side * ratio;
      const pen = panel.base.getContext("2d"), ink = getComputedStyle(root).color;
      const dot = panel.samples.length > 3000 ? 1.6 : 4;
      pen.scale(ratio, ratio);
      for (const lit of [false, true]) for (const i of panel.order) {
        if (visible(panel.samples[i]) !== lit) continue;
        const [x, y] = place(panel, i);
        pen.globalAlpha = lit ? 0.85 : 0.06;
        pen.fillStyle = lit ? paints[panel.by](panel.samples[i]) : ink;
        pen.fillRect(x - dot / 2, y - dot / 2, dot, dot);
      }
      Object.assign(pen, { globalAlpha: 1, fillStyle: ink });
      if (panel.marked) panel.samples.forEach((sample, i) => {  // above all others, as in print
        if (!sample.wrong || !visible(sample)) return;
        const [x, y] = place(panel, i);
        pen.fillRect(x - MARK / 2, y - MARK / 2, MARK, MARK);
      });
      Object.assign(pen, { globalAlpha: 1, font: "bold 15px sans-serif", textAlign: "center",
        textBaseline: "middle", lineWidth: 3, strokeStyle: "#fff", fillStyle: "#000" });
      for (const [name, x, y] of panel.names) {  // classes, at their clusters
        if (chosen[0] && chosen[0].name !== `${name}`) continue;
        const at = [x, 255 - y].map(value => (0.02 + 0.96 * value / 255) * side);
        pen.strokeText(name, ...at);
        pen.fillText(name, ...at);
      }
      refresh(panel);
    }

    function refresh(panel) {
      const pen = panel.canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
      pen.setTransform(1, 0, 0, 1, 0, 0);
      pen.clearRect(0, 0, panel.canvas.width, panel.canvas.height);
      pen.drawImage(panel.base, 0, 0);
      if (!current || !panel.side || panel.map !== owner.map) return;
      pen.scale(ratio, ratio);
      pen.lineWidth = 2;
      pen.strokeStyle = getComputedStyle(root).color;
      pen.beginPath();
      pen.arc(...place(panel, current.i), 6, 0, 7);
      pen.stroke();
    }

    function select(panel, i) {
      [current, owner] = [i < 0 ? null : { i }, panel];
      panels.forEach(refresh);
      tip.hidden = !current;
      if (!current) return;
      const { set, label, said, wrong, picture: at } = panel.samples[i], { tile, columns } = common;
      const from = [(at % columns) * tile, Math.floor(at / columns) * tile];
      picture.getContext("2d").drawImage(set.image, ...from, tile, tile, 0, 0, SIDE, SIDE);
      words.textContent = `${set.title} digit ${label}, read as ${said}`;
      tip.classList.toggle("hover-wrong", wrong);
      const [x, y] = place(panel, i), { offsetLeft, offsetTop } = panel.canvas;
      const shift = y > panel.side / 2 ? -14 - tip.offsetHeight : 14;  // it stays within the figure
      tip.style.left = `${Math.max(0, Math.min(offsetLeft + x + 14, root.clientWidth - tip.offsetWidth))}px`;
      tip.style.top = `${offsetTop + y + shift}px`;
    }

    for (const panel of panels) {
      const stops = panel.samples.flatMap((s, i) => s.picture < 0 ? [] : [i]);
      const point = event => {
        const box = panel.canvas.getBoundingClientRect();
        const x = event.clientX - box.left, y = event.clientY - box.top;
        let best = -1, reach = event.pointerType === "touch" ? 900 : 225;  // pixels, squared
        for (const i of stops) if (visible(panel.samples[i])) {
          const at = place(panel, i), distance = (at[0] - x) ** 2 + (at[1] - y) ** 2;
          if (distance < reach) [best, reach] = [i, distance];
        }
        if (owner !== panel || best !== (current ? current.i : -1)) select(panel, best);
      };
      const leave = event => {  // a finger is lifted to read what it has touched
        if (owner === panel && event.pointerType !== "touch") select(panel, -1);
      };
      for (const type of ["pointermove", "pointerdown"]) panel.canvas.addEventListener(type, point);
      for (const type of ["pointerleave", "blur"]) panel.canvas.addEventListener(type, leave);
      panel.canvas.addEventListener("keydown", event => {
        if (event.key === "Escape") select(panel, -1);
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        const seen = stops.filter(i => visible(panel.samples[i]));
        const errors = seen.filter(i => panel.samples[i].wrong), list = errors.length ? errors : seen;
        const at = current && owner === panel ? list.indexOf(current.i) : -1, count = list.length;
        if (count) select(panel, list[(at < 0 && step < 0 ? count - 1 : at + step + count) % count]);
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
          select(panels[0], -1);
          panels.forEach(paint);
        });
        return button;
      });
    });
    const all = () => {
      select(panels[0], -1);
      panels.forEach(paint);
    };
    new ResizeObserver(all).observe(rows);
    new MutationObserver(all).observe(document.body, { attributeFilter: ["class"] });
  }
  return { share, lay, show };
})();
