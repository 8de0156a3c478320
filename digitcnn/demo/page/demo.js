// The demonstration: random test samples, drawings and photographs, read by both networks.
"use strict";
const $ = id => document.getElementById(id), all = (query, root = document) => [...root.querySelectorAll(query)];
const TITLES = { mnist: "MNIST", svhn: "SVHN" }, MODELS = Object.keys(TITLES);
const filter = { data: "mnist", digit: "", wrong: "" };
let view = "samples", parts = {}, limit = Infinity, drawn = [], at = 0, photo = null, turn = 0;
const seen = {};  // by view: what is shown, with both networks' answers
const maps = {};

async function ask(path, options) {  // JSON, or an Error whose message is the server's sentence
  const reply = await fetch(path, options).catch(() => {
    throw new Error("The demonstration does not answer: is it still running in the terminal?");
  });
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error);
  return found;
}

const ready = name => parts[name] === "ready";
const why = name => ready(name) || parts[name] === "loading" || !parts[name] ? "" : parts[name];

function notice(text = "") {
  $("notice").textContent = text;
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
  const data = `data ${filter.data}`, wrong = `stored ${filter.wrong} ${filter.data}`;
  const loading = MODELS.some(m => !ready(`model ${m}`) && !why(`model ${m}`));
  const waiting = view === "samples" && !ready(data) && !why(data);
  notice(loading ? "Loading the networks …" : view !== "samples" ? "" : why(data) ?
    `${why(data)} Drawing and photographs work without it.` : waiting ?
      `Reading the test samples of ${TITLES[filter.data]} …` : "");
  $("next").disabled = !ready(data);
  all("#wrong option").forEach(option => {
    option.disabled = option.value && !ready(`stored ${option.value} ${filter.data}`);
    option.title = option.value && why(`stored ${option.value} ${filter.data}`);
  });
  if (filter.wrong && why(wrong)) notice(why(wrong));
  show();
}

// Showing --------------------------------------------------------------------------------------

const cards = Object.fromEntries(all(".card").map(card => {
  card.append($("card").content.cloneNode(true));
  card.querySelector("h2").textContent = `${TITLES[card.dataset.model]} network`;
  for (let digit = 0; digit < 10; digit++) {
    const bar = document.createElement("div");
    bar.className = "bar";
    bar.innerHTML = "<b></b><i></i><output></output>";
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
  if (!$("seen").hidden) {
    $("pixels").src = item.pixels;
    $("caption").textContent = item.caption;
    $("pixels").alt = item.caption;
  }
  for (const model of MODELS) answer(cards[model], model, item);
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
  maps[key] ||= ask(`api/map?model=${model}&data=${name}`);
  const map = await maps[key].catch(() => delete maps[key] && null);
  if (!map || mine !== figure.turn || figure.hidden) return;
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
  try {
    const { samples, among } = await ask(`api/samples?${query}`);
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
    for (const sample of drawn) sample.caption = `${TITLES[sample.data]} test sample ` +
      `${sample.position.toLocaleString("en-GB")},\nlabelled ${sample.label}\n\nRight of these ${drawn.length}:\n` +
      `${score}\n\nDrawn from ${among.toLocaleString("en-GB")}`;
    choose(0);
  } catch (error) {
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

function set(changes) {  // change the filter, then draw with it
  Object.assign(filter, changes);
  all("[data-data]").forEach(b => b.setAttribute("aria-pressed", b.dataset.data === filter.data));
  $("digit").value = filter.digit;
  $("wrong").value = filter.wrong;
  open("samples");
  draw();
}

for (let digit = 0; digit < 10; digit++) $("digit").add(new Option(digit, digit));
$("digit").addEventListener("change", event => set({ digit: event.target.value }));
$("wrong").addEventListener("change", event => set({ wrong: event.target.value }));
$("next").addEventListener("click", draw);
all("[data-data]").forEach(button => button.addEventListener("click", () => set(button.dataset)));

// Drawings and photographs ---------------------------------------------------------------------

const sent = { busy: false, next: null }, given = {};  // by view: the picture that was sent
let prepare = "auto";

async function send(kind, blob) {  // the newest picture wins
  given[kind] = blob;
  if (sent.busy) return void (sent.next = [kind, blob]);
  sent.busy = true;
  try {
    if (blob.size > limit) throw new Error(`The file is too large: give one of at most ${limit / 1e6} MB.`);
    const found = await ask(`api/picture?prepare=${prepare}`, { method: "POST", body: blob });
    if (kind === "photo" || inked) seen[kind] = found;  // unless cleared meanwhile
    if (view === kind) notice();
  } catch (error) {
    delete seen[kind];
    notice(error.message);
  }
  sent.busy = false;
  show();
  const next = sent.next;
  sent.next = null;
  if (next) await send(...next);
}

function how(name) {  // the digit found first, or the whole picture
  prepare = name;
  all("[data-prepare]").forEach(b => b.setAttribute("aria-pressed", b.dataset.prepare === name));
  for (const kind of ["draw", "photo"]) if (seen[kind]) send(kind, given[kind]);
}

all("[data-prepare]").forEach(button => button.addEventListener("click", () => how(button.dataset.prepare)));

const pad = $("pad"), ink = pad.getContext("2d", { willReadFrequently: true });
let paper = "black", inked = false, last = null;

const spot = (canvas, event) => {
  const frame = canvas.getBoundingClientRect();
  return [(event.clientX - frame.left) * canvas.width / frame.width, (event.clientY - frame.top) * canvas.height / frame.height];
};

function clear() {
  ink.fillStyle = paper;
  ink.fillRect(0, 0, 512, 512);
  delete seen.draw;
  inked = false;
  show();
}

function stroke(event) {
  const to = spot(pad, event);
  Object.assign(ink, { lineWidth: 42, lineCap: "round", strokeStyle: paper === "black" ? "#fff" : "#000" });
  ink.beginPath();
  ink.moveTo(...last);
  ink.lineTo(...to);
  ink.stroke();
  last = to;
  inked = true;
  pad.toBlob(blob => send("draw", blob));
}

pad.addEventListener("pointerdown", event => {
  if (event.isTrusted) pad.setPointerCapture(event.pointerId);
  last = spot(pad, event);
  stroke(event);
});
pad.addEventListener("pointermove", event => last && stroke(event));
for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => { last = null; });
$("clear").addEventListener("click", clear);
all("[data-paper]").forEach(button => button.addEventListener("click", () => {
  if (paper === button.dataset.paper) return;
  paper = button.dataset.paper;
  all("[data-paper]").forEach(b => b.setAttribute("aria-pressed", b === button));
  Object.assign(ink, { globalCompositeOperation: "difference", fillStyle: "#fff" });
  ink.fillRect(0, 0, 512, 512);  // the negative
  ink.globalCompositeOperation = "source-over";
  if (inked) pad.toBlob(blob => send("draw", blob));
}));

const shot = $("photo"), film = shot.getContext("2d");

async function take(file) {
  open("photo");
  photo = await createImageBitmap(file).catch(() => null);
  $("shot").hidden = $("crop").hidden = !photo;
  await send("photo", file);
  frame();
}

function frame(square) {  // the photograph, and the part that is chosen of it
  if (!photo) return;
  const scale = 512 / Math.max(photo.width, photo.height), w = photo.width * scale, h = photo.height * scale;
  film.clearRect(0, 0, 512, 512);
  film.drawImage(photo, (512 - w) / 2, (512 - h) / 2, w, h);
  Object.assign(film, { strokeStyle: "#fff", lineWidth: 3, shadowColor: "#000", shadowBlur: 6 });
  if (square) film.strokeRect(...square);
  film.shadowBlur = 0;
  return { scale, left: (512 - w) / 2, top: (512 - h) / 2 };
}

let corner = null, square = null;
shot.addEventListener("pointerdown", event => {
  if (event.isTrusted) shot.setPointerCapture(event.pointerId);
  corner = spot(shot, event);
  square = null;
});
shot.addEventListener("pointermove", event => {
  if (!corner) return;
  const [x, y] = spot(shot, event), [dx, dy] = [x - corner[0], y - corner[1]];
  const side = Math.max(Math.abs(dx), Math.abs(dy));
  square = side < 12 ? null : [dx < 0 ? corner[0] - side : corner[0], dy < 0 ? corner[1] - side : corner[1], side, side];
  frame(square);
});
shot.addEventListener("pointerup", () => {
  corner = null;
  const { scale, left, top } = frame(square), part = document.createElement("canvas");
  const [x, y, side] = square || [left, top, 512];
  const [wide, high] = square ? [side, side] : [photo.width * scale, photo.height * scale];
  [part.width, part.height] = [wide / scale, high / scale].map(value => Math.max(1, Math.round(Math.min(value, 2000))));
  part.getContext("2d").drawImage(photo, (x - left) / scale, (y - top) / scale, wide / scale, high / scale,
    0, 0, part.width, part.height);
  part.toBlob(blob => send("photo", blob));
});

$("file").addEventListener("change", event => {
  if (event.target.files.length) take(event.target.files[0]);
  event.target.value = "";
});
addEventListener("paste", event => {
  if (event.clipboardData.files.length) take(event.clipboardData.files[0]);
});
for (const kind of ["dragover", "drop"]) addEventListener(kind, event => {
  event.preventDefault();
  $("drop").classList.toggle("over", kind === "dragover");
  if (kind === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
});

// Views, theme, keys ---------------------------------------------------------------------------

function open(name) {
  view = name;
  all("[data-view]").forEach(b => b.setAttribute("aria-pressed", b.dataset.view === name));
  all("[data-panel]").forEach(panel => { panel.hidden = panel.dataset.panel !== name; });
  refresh();
}

function theme() {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (!document.documentElement.style.colorScheme && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.style.colorScheme = dark ? "light" : "dark";
  show();
}

all("[data-view]").forEach(button => button.addEventListener("click", () => open(button.dataset.view)));
$("theme").addEventListener("click", theme);
addEventListener("resize", show);
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
  const key = event.key.toLowerCase(), step = { arrowright: 1, arrowleft: -1 }[key];
  if (step && view === "samples" && drawn.length) choose(at + step);
  else if (key === "n") { open("samples"); draw(); }
  else if (key === "m" || key === "s") set({ data: key === "m" ? "mnist" : "svhn" });
  else if (/^[0-9]$/.test(key)) set({ digit: key });
  else if (key === "a") set({ digit: "", wrong: "" });
  else if (key === "w") set({ wrong: filter.wrong ? "" : filter.data });
  else if (key === "d") open("draw");
  else if (key === "p") open("photo");
  else if (key === "c") clear();
  else if (key === "f" && view !== "samples") how(prepare === "auto" ? "none" : "auto");
  else if (key === "l") theme();
});

clear();
watch();
