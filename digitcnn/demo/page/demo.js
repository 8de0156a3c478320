// The demonstration: random test samples, read by both networks; board.js has pictures of one's own.
"use strict";
const $ = id => document.getElementById(id), all = (query, root = document) => [...root.querySelectorAll(query)];
const TITLES = { mnist: "MNIST", svhn: "SVHN" }, MODELS = Object.keys(TITLES);
const filter = { data: "mnist", digit: "", wrong: "" };
let view = "samples", parts = {}, limit = Infinity, drawn = [], at = 0, turn = 0, asked = 0, asking = 0, saying;
const seen = {};  // by view: what is shown, with both networks' answers
const maps = {};

async function ask(path, options) {  // JSON, or an Error whose message is the server's sentence
  asking++;
  try {
    const reply = await fetch(path, options).catch(() => fetch(path, options)).catch(() => {
      throw new Error("The demonstration does not answer: is it still running in the terminal?");
    });
    const found = await reply.json();
    if (!reply.ok) throw new Error(found.error);
    return found;
  } finally {
    asking--;
  }
}

const ready = name => parts[name] === "ready";
const why = name => ready(name) || parts[name] === "loading" || !parts[name] ? "" : parts[name];

function notice(text = "") {
  $("notice").textContent = text;
}

function announce() {  // to a screen reader, once, when a step has come to rest
  clearTimeout(saying);
  saying = setTimeout(() => {
    if (sent.busy || sent.due) return announce();  // what is being read will be told
    const item = seen[view], empty = { draw: "The drawing board is empty.", photo: "No picture is chosen." };
    const answers = MODELS.map(model => [`${TITLES[model]} network:`,
      ...all(".answer p *", cards[model]).map(part => part.textContent)].join(" "));
    const text = $("notice").textContent || (item ? [item.spoken || "Your picture", ...answers].join(". ") : empty[view] || "");
    if ($("said").textContent !== text) $("said").textContent = text;
  }, 400);
}

// What is there --------------------------------------------------------------------------------

async function watch() {
  let before;
  do {
    const state = await ask("api/state").catch(error => notice(error.message));
    if (state && JSON.stringify(state.parts) !== before) {
      before = JSON.stringify(state.parts);
      ({ parts, limit } = state);
      refresh();
      if (ready(`data ${filter.data}`) && !drawn.length) draw();  // models and maps come before
    }
    await new Promise(done => setTimeout(done, 400));
  } while (!before || Object.keys(parts).length === 0 || Object.values(parts).includes("loading"));
}

function refresh() {  // sentences about what is missing or still loading
  const data = `data ${filter.data}`, wrong = `stored ${filter.wrong} ${filter.data}`, every = Object.values(parts);
  $("progress").hidden = every.length && !every.includes("loading");
  if (every.length) $("progress").value = every.filter(part => part !== "loading").length / every.length;
  const loading = MODELS.some(m => !ready(`model ${m}`) && !why(`model ${m}`));
  const waiting = view === "samples" && !ready(data) && !why(data);
  notice(loading ? "Loading the networks …" : view !== "samples" ? "" : why(data) ?
    `${why(data)} Drawing and photographs work without it.` : waiting ?
      `Reading the test samples of ${TITLES[filter.data]} …` : "");
  $("next").disabled = !ready(data);
  for (const button of all("[data-wrong]")) if (button.dataset.wrong) {
    const stored = `stored ${button.dataset.wrong} ${filter.data}`;
    Object.assign(button, { disabled: !ready(stored), title: why(stored) });
  }
  if (ready("examples") && !$("examples").children.length) examples();
  if (filter.wrong && why(wrong)) notice(why(wrong));
  show();
}

// Showing --------------------------------------------------------------------------------------

const cards = Object.fromEntries(all(".card").map(card => {
  card.append($("card").content.cloneNode(true));
  card.querySelector("h2").textContent = card.querySelector(".answer p").dataset.title = `${TITLES[card.dataset.model]} network`;
  for (let digit = 0; digit < 10; digit++) {
    const bar = document.createElement("div");
    bar.className = "bar";
    bar.innerHTML = "<b></b><i></i><span></span>";
    bar.firstChild.textContent = digit;
    card.querySelector(".bars").append(bar);
  }
  return [card.dataset.model, card];
}));

const most = shares => shares.indexOf(Math.max(...shares));
const percent = share => share > .9995 ? "> 99.9 %" : share && share < .0005 ? "< 0.1 %" :
  `${(100 * share).toFixed(1)} %`;

function show() {
  const item = seen[view];
  $("seen").hidden = !item || view !== "samples";
  $("how").hidden = view === "samples";
  if (view !== "samples") press("prepare", prepare[view]);
  if (!$("seen").hidden) {
    $("pixels").src = item.pixels;
    $("caption").textContent = item.caption;
    $("pixels").alt = item.caption;
  }
  for (const model of MODELS) answer(cards[model], model, item);
  announce();
}

function answer(card, model, item) {
  const found = item && item.answers[model], said = found && !found.blank ? found : null;
  const [big, words] = card.querySelector(".answer p").children, got = card.querySelector(".answer img");
  const shares = said ? said.probabilities : Array(10).fill(0), digit = said ? most(shares) : null;
  const known = item && "label" in item, right = known && digit === item.label;
  const unlike = said && !known && said.unlike;
  got.hidden = !found || !found.pixels;
  if (!got.hidden) got.src = found.pixels;
  big.textContent = digit ?? "–";
  words.textContent = !said ? found ? "Blank: no ink was found" : "" :
    unlike ? `Nothing like a digit (${percent(shares[digit])} sure)` : !known ? `${percent(shares[digit])} sure` :
    right ? `✓ right, ${percent(shares[digit])} sure` :
      `✗ wrong, ${percent(shares[digit])} sure; labelled ${item.label}`;
  card.querySelector(".answer").className = "answer" + (unlike || found && !said ? " unlike" :
    said && known ? right ? " right" : " wrong" : "");
  all(".bar", card).forEach((bar, k) => {
    bar.classList.toggle("said", k === digit);
    bar.classList.toggle("true", Boolean(known && k === item.label));
    bar.children[1].style.setProperty("--share", `${100 * shares[k]}%`);
    bar.children[2].textContent = said ? percent(shares[k]) : "";
  });
  const name = said && said.map ? said.map : null, own = view === "samples" ? filter.data : model;
  const notes = found ? [item.note, found.note].filter(note => note).join("; ") : "";
  card.querySelector(".note").textContent = notes && `${notes[0].toUpperCase()}${notes.slice(1)}.`;
  card.querySelector(".missing").textContent = why(`model ${model}`) || why(`map ${model} ${own}`);
  const figure = card.querySelector(".map");
  figure.hidden = !name;
  if (name) locate(figure, model, name, said, known ? item.label : digit, known);
}

async function locate(figure, model, name, said, digit, known) {  // the sample's place in the UMAP
  const key = `${model} ${name}`, mine = figure.turn = ++turn;
  if (figure.shown !== key) {  // the old map goes at once
    figure.querySelector("canvas").width = 0;
    figure.querySelector("figcaption").textContent = "The map is loading …";
  }
  maps[key] ||= ask(`api/map?model=${model}&data=${name}`);
  const map = await maps[key].catch(() => delete maps[key] && null);
  if (!map || mine !== figure.turn || figure.hidden) return;
  figure.shown = key;
  const canvas = figure.querySelector("canvas"), pen = canvas.getContext("2d");
  const zoom = window.devicePixelRatio || 1, wide = canvas.clientWidth, high = canvas.clientHeight;
  const style = getComputedStyle(canvas), ink = style.color, ground = getComputedStyle(figure.parentNode).backgroundColor;
  const place = ([x, y]) => [10 + x / 1000 * (wide - 20), 10 + (1 - y / 1000) * (high - 20)];
  [canvas.width, canvas.height] = [wide * zoom, high * zoom];
  pen.scale(zoom, zoom);
  for (const own of [false, true]) map.points.forEach((point, i) => {
    if ((map.labels[i] === digit) !== own) return;
    const [x, y] = place(point);
    pen.globalAlpha = own ? .9 : .12;
    pen.fillStyle = map.colours[map.labels[i]];
    pen.fillRect(x - 1, y - 1, 2, 2);
  });
  pen.globalAlpha = 1;
  Object.assign(pen, { textAlign: "center", textBaseline: "middle", lineJoin: "round", strokeStyle: ground, lineWidth: 4,
    fillStyle: ink, font: `bold ${style.fontSize} sans-serif` });
  const [left, top] = place(said.place);
  for (const [label, spot] of Object.entries(map.names)) {
    let [x, y] = place(spot);
    if (Math.hypot(x - left, y - top) < 24) [x, y] = [left + (left < wide - 40 ? 24 : -24), top];  // beside the ring
    pen.strokeText(label, x, y);
    pen.fillText(label, x, y);
  }
  const ring = (point, radius, width, colour) => {
    pen.beginPath();
    pen.arc(...place(point), radius, 0, 7);
    Object.assign(pen, { lineWidth: width, strokeStyle: colour });
    pen.stroke();
  };
  for (const point of said.near || []) ring(point, 2.5, 1, ink);
  ring(said.place, 10, 7, ground);
  ring(said.place, 10, 3, ink);
  figure.querySelector("figcaption").textContent = known ?
    `UMAP of this network’s features of ${TITLES[name]}. Ring: this sample. Bright: all labelled ${digit}.` :
    `UMAP of this network’s features of ${TITLES[name]}. Ring: amid the ${said.near.length} samples ` +
    `with the nearest logits. Bright: class ${digit}.`;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", figure.textContent);
}

// Test samples ---------------------------------------------------------------------------------

async function draw() {
  const query = new URLSearchParams(Object.entries(filter).filter(([, value]) => value));
  const mine = ++asked;
  try {
    const { samples, among } = await ask(`api/samples?${query}`);
    if (mine !== asked) return;  // of an earlier step
    notice();
    drawn = samples;
    $("strip").replaceChildren(...drawn.map((sample, i) => {
      const button = document.createElement("button"), marks = document.createElement("b");
      const image = Object.assign(document.createElement("img"), { src: sample.pixels, alt: "" });
      for (const model of MODELS) if (sample.answers[model]) {
        const right = most(sample.answers[model].probabilities) === sample.label;
        const mark = Object.assign(document.createElement("span"),
          { textContent: right ? "✓" : "✗", className: right ? "right" : "wrong" });
        marks.append(mark, " ");
      }
      button.append(image, marks);
      button.title = `labelled ${sample.label}; marks: MNIST network, SVHN network`;
      button.setAttribute("aria-label", `Sample ${i + 1}, labelled ${sample.label}`);
      button.addEventListener("click", () => choose(i));
      return button;
    }));
    const score = MODELS.map(m => `${TITLES[m]} network ${drawn.filter(s => s.answers[m] &&
      most(s.answers[m].probabilities) === s.label).length}`).join("\n");
    for (const sample of drawn) sample.spoken =
      `${TITLES[sample.data]} test sample ${sample.position}, labelled ${sample.label}`;
    for (const sample of drawn) sample.caption = `${TITLES[sample.data]} test sample ` +
      `${sample.position.toLocaleString("en-GB")},\nlabelled ${sample.label}\n\nRight of these ${drawn.length}:\n` +
      `${score}\n\nDrawn from ${among.toLocaleString("en-GB")}`;
    choose(0);
  } catch (error) {
    if (mine !== asked) return;
    drawn = [];
    delete seen.samples;
    $("strip").replaceChildren();
    refresh();
    if (ready(`data ${filter.data}`)) notice(error.message);
  }
}

function choose(i) {
  at = (i + drawn.length) % drawn.length;
  all("#strip button").forEach((button, k) => button.setAttribute("aria-pressed", k === at));
  seen.samples = drawn[at];
  show();
}

function press(name, value) {  // shows which button of a group is chosen
  all(`[data-${name}]`).forEach(b => b.setAttribute("aria-pressed", b.dataset[name] === String(value)));
}

function set(changes) {  // change the filter, then draw with it; another data set begins unfiltered
  Object.assign(filter, "data" in changes ? { digit: "", wrong: "" } : {}, changes);
  for (const [name, value] of Object.entries(filter)) press(name, value);
  open("samples");
  draw();
}

for (let digit = 0; digit < 10; digit++) {
  const button = Object.assign(document.createElement("button"), { textContent: digit });
  button.dataset.digit = digit;
  $("digits").append(button);
}
for (const name of ["data", "digit", "wrong"]) all(`[data-${name}]`).forEach(button =>
  button.addEventListener("click", () => set({ [name]: button.dataset[name] })));
$("next").addEventListener("click", draw);

// Views, theme, keys ---------------------------------------------------------------------------

function open(name) {
  view = name;
  press("view", name);
  all("[data-panel]").forEach(panel => { panel.hidden = panel.dataset.panel !== name; });
  refresh();
}

function theme() {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (!document.documentElement.style.colorScheme && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.style.colorScheme = dark ? "light" : "dark";
  show();
}

function visit(name) {  // a test sample that was taken to the board does not wait there
  if (name === "draw" && view !== "draw" && taken) clear();
  open(name);
}

all("[data-view]").forEach(button => button.addEventListener("click", () => visit(button.dataset.view)));
$("theme").addEventListener("click", theme);
addEventListener("resize", show);
const KEYS = {  // whatever has the focus
  n: () => { open("samples"); draw(); },
  m: () => set({ data: "mnist" }),
  s: () => set({ data: "svhn" }),
  a: () => set({ digit: "", wrong: "" }),
  w: () => {  // errors of the data set's own network, then of the other one, then everything
    const order = ["", filter.data, MODELS.find(model => model !== filter.data)];
    set({ wrong: order[(order.indexOf(filter.wrong) + 1) % 3] });
  },
  arrowright: () => view === "samples" && drawn.length && choose(at + 1),
  arrowleft: () => view === "samples" && drawn.length && choose(at - 1),
  b: () => lift(),
  d: () => visit("draw"),
  p: () => open("photo"),
  c: () => view === "draw" && clear(),
  r: () => view === "draw" && hold(tool === "pen" ? "rubber" : "pen"),
  f: () => view !== "samples" && how(prepare[view] === "auto" ? "none" : "auto"),
  l: theme,
};
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase(), digit = /^[0-9]$/.test(key);
  if (!digit && !Object.hasOwn(KEYS, key)) return;
  event.preventDefault();
  if (digit) set({ digit: key });
  else KEYS[key]();
}, true);
