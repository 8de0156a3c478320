// Drawings and photographs: the drawing board, with test samples on it too, files and examples.
"use strict";
const sent = { busy: false, next: null, due: 0 }, given = {};  // by view: the picture that was sent
const prepare = { draw: "auto", photo: "auto" };

async function send(kind, blob) {  // the newest picture wins
  given[kind] = blob;
  if (sent.busy) return void (sent.next = [kind, blob]);
  sent.busy = true;
  try {
    if (blob.size > limit) throw new Error(`The file is too large: give one of at most ${limit / 1e6} MB.`);
    const found = await ask(`api/picture?prepare=${prepare[kind]}`, { method: "POST", body: blob });
    found.spoken = [kind === "photo" ? photoName : taken || "Your drawing",
      kind === "draw" && (paper === "black" ? "white on black" : "black on white"),
      prepare[kind] === "auto" ? "digit found first" : "whole picture"].filter(Boolean).join(", ");
    if (kind === "photo" ? blob === given.photo : inked) {  // unless cleared, or another chosen
      seen[kind] = found;
      if (view === kind) notice();
    }
  } catch (error) {
    if (blob === given[kind]) {
      delete seen[kind];
      notice(error.message);
    }
  }
  sent.busy = false;
  show();
  const next = sent.next;
  sent.next = null;
  if (next) await send(...next);
}

function how(name, kind = view) {  // the digit found first, or the whole picture
  prepare[kind] = name;
  press("prepare", name);
  if (seen[kind]) send(kind, given[kind]);
}

all("[data-prepare]").forEach(button => button.addEventListener("click", () => how(button.dataset.prepare)));

const pad = $("pad"), ink = pad.getContext("2d", { willReadFrequently: true });
let paper = "black", ground = [0, 0, 0], tool = "pen", inked = false, last = null, photo = null;
let taken = "", photoName = "";  // the test sample on the board and the photograph, in words

const spot = (canvas, event) => {
  const frame = canvas.getBoundingClientRect();
  return [(event.clientX - frame.left) * canvas.width / frame.width, (event.clientY - frame.top) * canvas.height / frame.height];
};

function hold(name) {
  tool = name;
  press("tool", name);
}

function clear() {
  [taken, inked, ground] = ["", false, paper === "black" ? [0, 0, 0] : [255, 255, 255]];
  $("taken").textContent = "";
  ink.fillStyle = paper;
  ink.fillRect(0, 0, 512, 512);
  delete seen.draw;
  hold("pen");
  how("auto", "draw");
  show();
}

async function lift() {  // the chosen test sample, pixel by pixel, onto the drawing board
  const item = seen.samples, image = new Image();
  if (!item || view !== "samples") return;
  image.src = item.pixels;
  await image.decode();
  ink.imageSmoothingEnabled = false;
  ink.drawImage(image, 0, 0, 512, 512);
  const { data } = ink.getImageData(0, 0, 512, 512), border = [0, 1, 2].map(channel =>
    Array.from({ length: 32 }, (_, i) => data[4 * (i * 16 + (i % 2 ? 511 * 512 : 0)) + channel]).sort((a, b) => a - b));
  ground = border.map(values => values[16]);  // the rubber's colour
  paper = ground[0] + ground[1] + ground[2] < 384 ? "black" : "white";
  press("paper", paper);
  taken = `${item.spoken}, on the drawing board`;
  $("taken").textContent = `${item.caption.split("\n\n")[0].replace("\n", " ")}. Change it with pen and rubber.`;
  [inked, prepare.draw] = [true, "none"];  // as the networks got it as a test sample
  delete seen.draw;  // the answer to what was on the board before
  hold("rubber");
  open("draw");
  submit();
}

function submit() {  // a test sample keeps its own pixels wherever nothing was drawn
  const on = blob => sent.due-- && send("draw", blob);
  sent.due++;
  if (!taken) return pad.toBlob(on);
  const small = Object.assign(document.createElement("canvas"), { width: 32, height: 32 });
  const from = ink.getImageData(0, 0, 512, 512).data, to = new ImageData(32, 32);
  const sums = new Float64Array(to.data.length);
  for (let i = 0; i < from.length; i++) {
    const pixel = i >> 2, x = pixel % 512 >> 4, y = pixel >> 13;
    sums[4 * (32 * y + x) + i % 4] += from[i] / 256;
  }
  to.data.set(sums.map(Math.round));
  small.getContext("2d").putImageData(to, 0, 0);
  small.toBlob(on);
}

function stroke(event) {
  const to = spot(pad, event), pen = paper === "black" ? "#fff" : "#000";
  Object.assign(ink, { lineWidth: 42, lineCap: "round", strokeStyle: tool === "pen" ? pen : `rgb(${ground})` });
  ink.beginPath();
  ink.moveTo(...last);
  ink.lineTo(...to);
  ink.stroke();
  last = to;
  inked = true;
  if (taken) taken = taken.replace(/(, changed)?$/, ", changed");
  submit();
}

pad.addEventListener("pointerdown", event => {
  if (event.isTrusted) pad.setPointerCapture(event.pointerId);
  last = spot(pad, event);
  stroke(event);
});
pad.addEventListener("pointermove", event => last && stroke(event));
for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => { last = null; });
$("clear").addEventListener("click", clear);
$("lift").addEventListener("click", lift);
all("[data-tool]").forEach(button => button.addEventListener("click", () => hold(button.dataset.tool)));
all("[data-paper]").forEach(button => button.addEventListener("click", () => {
  if (paper === button.dataset.paper) return;
  paper = button.dataset.paper;
  ground = ground.map(value => 255 - value);
  press("paper", paper);
  Object.assign(ink, { globalCompositeOperation: "difference", fillStyle: "#fff" });
  ink.fillRect(0, 0, 512, 512);  // the negative
  ink.globalCompositeOperation = "source-over";
  if (inked) submit();
}));

const shot = $("photo"), film = shot.getContext("2d");

async function take(file, name = file.name) {
  [photoName, given.photo] = [`Picture: ${name}`, file];
  delete seen.photo;  // of the one before
  open("photo");
  notice("Reading the picture …");
  sent.due++;
  const image = await createImageBitmap(file).catch(() => null);
  sent.due--;
  if (given.photo !== file) return;  // another one was chosen meanwhile
  photo = image;
  $("shot").hidden = $("crop").hidden = !photo;
  frame();
  await send("photo", file);
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
  photoName = photoName.replace(/(, a part)?$/, square ? ", a part" : "");
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

async function examples() {  // pictures to click, where nobody has brought one
  const found = await ask("api/examples").catch(() => ({}));
  $("examples").replaceChildren(...Object.entries(found).map(([name, src]) => {
    const button = document.createElement("button"), image = Object.assign(document.createElement("img"), { src, alt: "" });
    Object.assign(button, { title: name });
    button.setAttribute("aria-label", `Example: ${name}`);
    button.append(image);
    button.addEventListener("click", () => {
      const copy = Object.assign(document.createElement("canvas"), { width: image.naturalWidth, height: image.naturalHeight });
      copy.getContext("2d").drawImage(image, 0, 0);
      copy.toBlob(blob => take(blob, name));
    });
    return button;
  }));
}

clear();
watch();
