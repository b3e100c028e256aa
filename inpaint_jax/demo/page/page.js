// The page around the editor: photo in, calls to the server, results out, and what goes on from a result.

import { Editor } from "./editor.js";
import { Result } from "./result.js";
import { call, decoded, form } from "./server.js";

const at = (id) => document.getElementById(id);
const editor = new Editor(at("canvas"));
const result = new Result();

let model = null;
let photo = null; // {file, name, width, height, shown, preview}: as it was given, and as it is drawn on
let busy = null; // the AbortController of the call that goes on

// Photos, each the result of the one before: {photo, drawing, result, chosen, each}; `each` if it was
// filled after a stroke.
let steps = [];
let now = 0;

// ------------------------------------------------------------------------------------------------------------- calls

// Runs a call with the buttons locked; shows what is waited for, and what went wrong.
async function work(doing, task) {
  if (busy) return;
  busy = new AbortController();
  const { signal } = busy;
  const ticket = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16)).join("");
  const started = Date.now();
  at("error").textContent = "";
  tell(`${doing} …`);
  lock();
  const clock = setInterval(async () => {
    const { before } = await call(`/api/turns/${ticket}`).catch(() => ({ before: null }));
    if (signal.aborted || busy?.signal !== signal) return;
    const seconds = Math.round((Date.now() - started) / 1000);
    if (before) tell(`Waiting for ${before === 1 ? "another visitor" : `${before} other visitors`} …`);
    else tell(`${doing} …`, `${seconds} s${seconds > 4 ? " (the first of its size takes longer)" : ""}`);
  }, 1000);
  try {
    tell((await task(ticket, signal)) ?? "");
  } catch (error) {
    tell(error.name === "AbortError" ? "Cancelled." : "");
    if (error.name !== "AbortError") complain(error.message);
  } finally {
    clearInterval(clock);
    busy = null;
    lock();
  }
}

// The seconds are for the eye: read out, they would never end.
function tell(text, seconds = "") {
  if (at("doing").textContent !== text) at("doing").textContent = text;
  at("clock").textContent = seconds;
}

function complain(sentence) {
  at("error").textContent = sentence;
  if (sentence) tell("");
}

function lock() {
  editor.locked = Boolean(busy);
  for (const id of ["clear", "other", "choose", "load-mask", "save-mask", "go-on"]) at(id).disabled = Boolean(busy);
  for (const id of ["fill", "suggest"]) at(id).ariaDisabled = Boolean(busy); // disabled, they would lose the focus
  at("undo").disabled = Boolean(busy) || !(editor.canUndo || now > 0);
  at("redo").disabled = Boolean(busy) || !(editor.canRedo || now < steps.length - 1);
  at("cancel").hidden = !busy;
}

async function read(file, name, signal) {
  const seen = await call("/api/photo", { method: "POST", body: form({ photo: { file, name } }), signal });
  const preview = decoded(seen.preview);
  const { width, height } = seen;
  return { photo: { file, name, width, height, preview, shown: await createImageBitmap(preview) }, hole: seen.hole };
}

// `get` gives the file, or a promise of it.
async function open(get, name) {
  await work("Reading the photo", async (ticket, signal) => {
    if (!model) throw new Error("The server has not answered yet; reload the page.");
    const { megabytes } = model.limits;
    const file = await get();
    if (file.size > megabytes * 1e6) {
      throw new Error(`${name} has more than the ${megabytes} megabytes that may be sent; choose a smaller photo.`);
    }
    const opened = await read(file, name, signal);
    const hole = opened.hole && (await whiteOnly(decoded(opened.hole)));
    photo = opened.photo;
    steps = [{ photo }];
    now = 0;
    for (const id of ["view", "comparison"]) at(id).style.setProperty("--ratio", photo.shown.width / photo.shown.height);
    document.body.classList.remove("empty");
    at("go").append(at("say"));
    at("empty").hidden = true;
    at("drawing").hidden = at("panel").hidden = false;
    result.hide();
    editor.open(photo.shown, { hole });
    editor.view.reset();
    at("canvas").setAttribute("aria-label", `${name}, to draw on`);
    sides();
    at("canvas").focus({ preventScroll: true });
    return "Brush over what should go.";
  });
}

function close() {
  photo = null;
  document.body.classList.add("empty");
  at("empty").append(at("say"));
  at("empty").hidden = false;
  at("drawing").hidden = at("panel").hidden = true;
  result.hide();
  tell("");
  at("choose").focus();
}

async function suggest() {
  await work("Looking for lines", async (ticket, signal) => {
    const { lines } = await call("/api/suggest", { method: "POST", body: form({ photo, ticket }), signal });
    editor.addImage("lines", await whiteOnly(decoded(lines)));
    if (editor.isEmpty("hole")) at("lines-hint").textContent = "Brush a hole: lines count inside it.";
  });
}

// `each`: after a stroke, to go on at once.
async function fill(each = false) {
  if (busy || !photo) return;
  const method = at("method").value;
  const guided = model.guided && !method && !editor.isEmpty("lines");
  if (editor.isEmpty("hole")) return complain("Nothing is brushed yet; brush over what should be replaced.");
  if (model.needs_lines && !method && !guided) {
    return complain("This model always needs lines; draw some inside the hole.");
  }
  await work("Filling the hole", async (ticket, signal) => {
    const [hole, lines] = await Promise.all([editor.png("hole"), guided ? editor.png("lines") : null]);
    const compare = guided && at("compare").checked;
    const body = form({ photo, hole, lines, side: at("side").value, compare, method, grow: at("grow").checked, ticket });
    const { variants } = await call("/api/fill", { method: "POST", body, signal });
    const step = steps[now];
    steps.length = now + 1; // what was made of another result
    Object.assign(step, { result: Result.variants(variants), chosen: 0, each: false });
    result.show(step.result, steps[0].photo);
    if (each) {
      await takeOver(signal);
      step.each = true;
    } else at("result").scrollIntoView({ block: "start" });
    return "The hole is filled.";
  });
}

// ------------------------------------------------------------------------------------------------------------- steps

async function takeOver(signal) {
  const next = (await read(result.file, photo.name, signal)).photo;
  steps[now].chosen = result.chosen;
  steps.splice(now + 1, Infinity, { photo: next });
  go(now + 1);
}

async function goOn() {
  await work("Taking the result over", async (ticket, signal) => {
    await takeOver(signal);
    at("stage").scrollIntoView({ block: "start" });
    at("canvas").focus({ preventScroll: true });
    return "Brush over what else should go; Undo leads back.";
  });
}

// Shows another step; what was drawn there is drawn again.
function go(step) {
  steps[now].drawing = editor.drawing;
  now = step;
  photo = steps[now].photo;
  editor.open(photo.shown, { drawing: steps[now].drawing });
  const made = steps[now].result ? steps[now] : steps[now - 1];
  if (made) result.show(made.result, steps[0].photo, made.chosen);
  else result.hide();
}

function undo() {
  if (busy || !photo) return;
  if (editor.canUndo) return editor.undo();
  if (now === 0) return;
  go(now - 1);
  if (steps[now].each) editor.undo(); // the stroke that was filled at once
}

function redo() {
  if (busy || !photo) return;
  if (editor.canRedo) {
    editor.redo();
    if (!steps[now].each) return;
  }
  if (!editor.canRedo && now < steps.length - 1) go(now + 1);
}

function drawn({ detail: stroke }) {
  steps.length = now + 1; // what was made of another drawing
  steps[now].each = false;
  lock();
  if (at("each").checked && stroke.layer === "hole" && !stroke.erase && !stroke.image) fill(true);
}

// ------------------------------------------------------------------------------------------------------------- masks

// White on black -> white on transparent.
async function whiteOnly(blob) {
  const bitmap = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i];
  context.putImageData(pixels, 0, 0);
  return canvas;
}

async function loadMask(file) {
  await work("Reading the mask", async (ticket, signal) => {
    const { width, height } = photo;
    const body = form({ mask: { file, name: file.name }, width, height });
    const { hole } = await call("/api/mask", { method: "POST", body, signal });
    editor.addImage("hole", await whiteOnly(decoded(hole)));
    return "The mask was added to the hole.";
  });
}

async function saveMask() {
  if (editor.isEmpty("hole")) return complain("Nothing is brushed yet, so there is no mask to save.");
  await work("Saving the mask", async () => {
    const address = URL.createObjectURL(await editor.png("hole", photo));
    const name = `${photo.name.replace(/\.[^.]*$/, "")}_mask.png`;
    Object.assign(document.createElement("a"), { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    return "The mask was saved, as it is brushed.";
  });
}

// ------------------------------------------------------------------------------------------------------------- tools

function sides() {
  const longest = Math.max(photo.width, photo.height);
  const useful = model.sides.filter((side, i) => i === 0 || model.sides[i - 1] < longest);
  const fits = useful.at(-1) >= longest;
  at("side").replaceChildren(
    ...useful.map((side, i) => new Option(fits && i === useful.length - 1 ? `full size (${longest} px)` : `${side} px`, side)),
  );
  // Full size where it is not much more work than the usual one.
  const usual = useful.filter((side) => side <= model.side).at(-1) ?? useful[0];
  at("side").value = fits && longest <= 1.5 * model.side ? useful.at(-1) : usual;
  sideHint();
}

function sideHint() {
  const side = Number(at("side").value);
  const longest = Math.max(photo.width, photo.height);
  at("side-hint").textContent =
    side < longest
      ? `The photo has ${photo.width} × ${photo.height}; a hole of more than ${side / 2} pixels is filled at a reduced size and enlarged.`
      : "";
}

function brush() {
  editor.brush = Number(at("width").value);
  at("width-shown").textContent = editor.brush;
}

function resizeBrush(step) {
  const width = Number(at("width").value);
  at("width").value = step > 0 ? Math.max(width + 1, width * 1.15) : Math.min(width - 1, width / 1.15);
  brush();
  editor.redraw();
}

function peek(on) {
  if (!photo) return;
  editor.peek(on ? steps[0].photo.shown : null);
  result.peek(on);
}

function key(event) {
  if (!photo || event.target.matches("select")) return;
  const name = event.key.toLowerCase();
  if (name === "[") resizeBrush(-1); // with whatever keys it takes to type it
  else if (name === "]") resizeBrush(1);
  else if (event.ctrlKey || event.metaKey) {
    if (name === "z" && !event.shiftKey) undo();
    else if (name === "y" || name === "z") redo();
    else if (name === "s" && !event.shiftKey) {
      if (result.file) at("download").click();
      else complain("There is no result to save yet; fill the hole first.");
    } else return;
  } else if (event.altKey) return;
  else if (name === "o") peek(true);
  else if (name === "+" || name === "=") editor.view.zoom(1.25);
  else if (name === "-") editor.view.zoom(0.8);
  else if (name === "0") editor.view.reset();
  else if (name === "escape") {
    if (busy) busy.abort();
    else editor.view.reset();
  } else return;
  event.preventDefault();
}

// ------------------------------------------------------------------------------------------------------------- start

function listenForFiles() {
  at("choose").addEventListener("click", () => at("file").click());
  at("load-mask").addEventListener("click", () => at("mask").click());
  for (const [id, use] of [["file", (file) => open(() => file, file.name)], ["mask", loadMask]]) {
    at(id).addEventListener("change", () => {
      const file = at(id).files[0];
      if (file) use(file);
      at(id).value = ""; // so that the same one can be chosen again
    });
  }
  const stage = at("stage");
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => { event.preventDefault(); stage.classList.add("over"); });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) stage.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    const file = event.dataTransfer.files[0];
    if (file) open(() => file, file.name);
  });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
    if (file) open(() => file, file.name);
  });
}

function listen() {
  listenForFiles();
  document.addEventListener("keydown", key);
  document.addEventListener("keyup", (event) => { if (event.key.toLowerCase() === "o") peek(false); });
  addEventListener("blur", () => peek(false));
  for (const button of document.getElementsByClassName("hold")) {
    button.addEventListener("pointerdown", () => peek(true));
    button.addEventListener("keydown", (event) => { if (event.key === " " || event.key === "Enter") peek(true); });
    for (const kind of ["pointerup", "pointercancel", "pointerleave", "keyup", "blur"]) {
      button.addEventListener(kind, () => peek(false));
    }
    button.addEventListener("contextmenu", (event) => event.preventDefault()); // what a long touch would open
  }
  for (const radio of document.getElementsByName("tool")) {
    radio.addEventListener("change", () => { editor.tool = radio.value; });
  }
  // Who chose a tool by mouse goes on with the keys of the canvas; who did so by keyboard stays.
  at("panel").addEventListener("click", (event) => {
    if (event.detail && event.target.closest(".tools")) requestAnimationFrame(() => at("canvas").focus({ preventScroll: true }));
  });
  const clicks = {
    undo, redo, suggest, "save-mask": saveMask, other: close, "go-on": goOn,
    clear: () => editor.clear(),
    cancel: () => busy?.abort(),
    "zoom-in": () => editor.view.zoom(1.5),
    "zoom-out": () => editor.view.zoom(1 / 1.5),
    "zoom-off": () => editor.view.reset(),
  };
  for (const [id, act] of Object.entries(clicks)) at(id).addEventListener("click", () => act());
  at("width").addEventListener("input", brush);
  at("side").addEventListener("change", sideHint);
  at("panel").addEventListener("submit", (event) => { event.preventDefault(); fill(); });
  editor.addEventListener("fill", () => fill());
  editor.addEventListener("undo", undo);
  editor.addEventListener("redo", redo);
  editor.addEventListener("stroke", drawn);
  editor.addEventListener("brush", (event) => resizeBrush(event.detail));
  editor.addEventListener("change", () => { complain(""); at("lines-hint").textContent = ""; lock(); });
}

async function start() {
  document.body.classList.add("empty");
  at("empty").append(at("say"));
  listen();
  brush();
  lock();
  try {
    model = await call("/api/model");
  } catch (error) {
    at("model").textContent = "";
    complain(error.message);
    return;
  }
  const kind = model.guided ? "follows lines that you draw" : "fills holes without lines";
  at("model").textContent = `Model ${model.name}, step ${model.step}, trained at ${model.image_size} × ${model.image_size}; it ${kind}.`;
  at("lines-tools").hidden = !model.guided;
  at("compare-choice").hidden = !model.guided || model.needs_lines;
  at("suggest").hidden = !model.suggests;
  at("learned").hidden = !model.learns_temperatures;
  at("constant").hidden = model.learns_temperatures;
  at("method").replaceChildren(
    new Option(`the model ${model.name}`, ""),
    ...Object.entries(model.methods).map(([name, title]) => new Option(title, name)),
  );
  at("examples").replaceChildren(
    ...model.examples.map(({ file, title }) => {
      const item = document.createElement("li");
      const button = Object.assign(document.createElement("button"), { type: "button", title });
      button.append(Object.assign(document.createElement("img"), { src: `/api/examples/${file}`, alt: title }));
      button.addEventListener("click", () => open(async () => {
        const answer = await fetch(`/api/examples/${file}`);
        if (!answer.ok) throw new Error(`The example ${file} is not there; choose a photo of your own.`);
        return answer.blob();
      }, file));
      item.append(button);
      return item;
    }),
  );
}

start();
