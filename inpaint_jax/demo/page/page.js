// The page around the editor: photo in, calls to the server, results out.

import { Editor } from "./editor.js";

const at = (id) => document.getElementById(id);
const editor = new Editor(at("canvas"));

let model = null;
let photo = null; // {file, width, height, name, shown}: as it was given, and as it is drawn on
let busy = null; // the AbortController of the call that goes on
let variants = [];
let addresses = []; // of the pictures in memory, to be given back

// ------------------------------------------------------------------------------------------------------------ server

async function call(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached; is it still running?");
  }
  if (!answer.ok) {
    const body = await answer.json().catch(() => ({}));
    throw new Error(body.error ?? `The server answered with ${answer.status}.`);
  }
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server's answer broke off; try again.");
  }
}

function form(fields) {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value === null) continue;
    if (value instanceof Blob) data.append(name, value, name === "photo" ? photo.name : `${name}.png`);
    else data.append(name, value);
  }
  return data;
}

function picture(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Blob([bytes], { type: "image/png" });
}

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
    tell(error.name === "AbortError" ? "Cancelled; a picture that was begun is still finished by the server." : "");
    if (error.name !== "AbortError") at("error").textContent = error.message;
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

function lock() {
  editor.locked = Boolean(busy);
  for (const id of ["clear", "other", "choose"]) at(id).disabled = Boolean(busy);
  for (const id of ["fill", "suggest"]) at(id).ariaDisabled = Boolean(busy); // disabled, they would lose the focus
  at("undo").disabled = Boolean(busy) || !editor.canUndo;
  at("redo").disabled = Boolean(busy) || !editor.canRedo;
  at("cancel").hidden = !busy;
}

// ------------------------------------------------------------------------------------------------------------- photo

// `get` gives the file, or a promise of it.
async function open(get, name) {
  await work("Reading the photo", async (ticket, signal) => {
    if (!model) throw new Error("The server has not answered yet; reload the page.");
    const { megabytes } = model.limits;
    const file = await get();
    if (file.size > megabytes * 1e6) {
      throw new Error(`${name} has more than the ${megabytes} megabytes that may be sent; choose a smaller photo.`);
    }
    const data = new FormData();
    data.append("photo", file, name);
    const seen = await call("/api/photo", { method: "POST", body: data, signal });
    const shown = await createImageBitmap(picture(seen.preview));
    photo = { file, name, width: seen.width, height: seen.height, shown, preview: picture(seen.preview) };
    for (const id of ["canvas", "comparison"]) at(id).style.setProperty("--ratio", shown.width / shown.height);
    editor.open(shown, seen.hole && (await whiteOnly(picture(seen.hole))));
    document.body.classList.remove("empty");
    at("empty").hidden = true;
    at("drawing").hidden = at("panel").hidden = false;
    at("result").hidden = true;
    at("canvas").setAttribute("aria-label", `${name}, to draw on`);
    sides();
    at("canvas").focus({ preventScroll: true });
    return "Brush over what should go.";
  });
}

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

function close() {
  photo = null;
  document.body.classList.add("empty");
  at("empty").hidden = false;
  at("drawing").hidden = at("panel").hidden = at("result").hidden = true;
  at("choose").focus();
}

// -------------------------------------------------------------------------------------------------------------- calls

async function suggest() {
  await work("Looking for lines", async (ticket, signal) => {
    const { lines } = await call("/api/suggest", { method: "POST", body: form({ photo: photo.file, ticket }), signal });
    editor.addLines(await whiteOnly(picture(lines)));
    if (editor.isEmpty("hole")) at("lines-hint").textContent = "Brush a hole: lines count inside it.";
  });
}

async function fill() {
  if (busy || !photo) return;
  if (editor.isEmpty("hole")) {
    at("error").textContent = "Nothing is brushed yet; brush over what should be replaced.";
    return;
  }
  const guided = model.guided && !editor.isEmpty("lines");
  if (model.needs_lines && !guided) {
    at("error").textContent = "This model always needs lines; draw some inside the hole.";
    return;
  }
  await work("Filling the hole", async (ticket, signal) => {
    const [hole, lines] = await Promise.all([editor.png("hole"), guided ? editor.png("lines") : null]);
    const body = form({
      photo: photo.file,
      hole,
      lines,
      side: at("side").value,
      compare: guided && at("compare").checked,
      ticket,
    });
    show((await call("/api/fill", { method: "POST", body, signal })).variants);
    return "The hole is filled.";
  });
}

// ------------------------------------------------------------------------------------------------------------- result

function show(made) {
  for (const address of addresses) URL.revokeObjectURL(address);
  variants = made.map(({ image, ...rest }) => ({ ...rest, address: URL.createObjectURL(picture(image)) }));
  const [original, preview] = [photo.file, photo.preview].map((file) => URL.createObjectURL(file));
  addresses = [original, preview, ...variants.map((variant) => variant.address)];
  at("before").onerror = () => { at("before").onerror = null; at("before").src = preview; }; // TIFF and the like
  at("before").src = original;
  at("variants").hidden = variants.length < 2;
  at("variants").replaceChildren(
    ...variants.map((variant, i) => {
      const label = document.createElement("label");
      const input = Object.assign(document.createElement("input"), { type: "radio", name: "variant", value: i, checked: !i });
      input.addEventListener("change", () => choose(i));
      const text = Object.assign(document.createElement("span"), { textContent: variant.label });
      label.append(input, text);
      return label;
    }),
  );
  at("result").hidden = false;
  choose(0);
  at("result").scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

function choose(i) {
  const { address, temperatures, worked_at: [height, width], seconds, label } = variants[i];
  at("after").src = address;
  at("after").alt = `The photo with its hole filled${variants.length > 1 ? `, ${label}` : ""}`;
  at("download").href = address;
  at("download").download = `${photo.name.replace(/\.[^.]*$/, "")}_filled.png`;
  at("made").textContent = `${photo.width} × ${photo.height} pixels, filled in a window of ${width} × ${height} in ${seconds} s.`;
  at("heads").hidden = temperatures.length === 0; // other systems than the paper's have none
  at("temperatures").replaceChildren(
    ...temperatures.map((t, head) => {
      const item = document.createElement("li");
      const scale = Object.assign(document.createElement("span"), { className: "scale", ariaHidden: "true" });
      const mark = document.createElement("i");
      // From 0.001 at the left to 10 at the right; what a LeakyReLU let fall below zero stands at the left.
      const place = t > 0 ? (Math.log10(t) + 3) / 4 : 0;
      mark.style.left = `${100 * Math.min(1, Math.max(0, place))}%`;
      scale.append(mark);
      const number = Object.assign(document.createElement("span"), { className: "number", textContent: `t = ${t.toPrecision(3)}` });
      item.append(Object.assign(document.createElement("span"), { textContent: `head ${head}` }), scale, number);
      return item;
    }),
  );
}

// -------------------------------------------------------------------------------------------------------------- start

function cut() {
  const share = at("slider").value;
  at("comparison").style.setProperty("--at", `${share}%`);
  at("cut").style.height = `${at("after").clientHeight}px`;
  at("before").style.width = `${at("after").clientWidth}px`;
  at("before").style.height = `${at("after").clientHeight}px`;
}

function brush() {
  editor.brush = Number(at("width").value);
  at("width-shown").textContent = editor.brush;
}

function listen() {
  at("choose").addEventListener("click", () => at("file").click());
  at("file").addEventListener("change", () => {
    const file = at("file").files[0];
    if (file) open(() => file, file.name);
    at("file").value = ""; // so that the same one can be chosen again
  });
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
  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || busy || !photo) return;
    const key = event.key.toLowerCase();
    if (key === "z" && !event.shiftKey) editor.undo();
    else if (key === "y" || key === "z") editor.redo();
    else return;
    event.preventDefault();
  });
  for (const radio of document.getElementsByName("tool")) {
    radio.addEventListener("change", () => { editor.tool = radio.value; });
  }
  at("width").addEventListener("input", brush);
  at("suggest").addEventListener("click", suggest);
  at("undo").addEventListener("click", () => editor.undo());
  at("redo").addEventListener("click", () => editor.redo());
  at("clear").addEventListener("click", () => editor.clear());
  at("other").addEventListener("click", close);
  at("side").addEventListener("change", sideHint);
  at("cancel").addEventListener("click", () => busy?.abort());
  at("panel").addEventListener("submit", (event) => { event.preventDefault(); fill(); });
  editor.addEventListener("fill", fill);
  editor.addEventListener("change", () => { at("error").textContent = ""; at("lines-hint").textContent = ""; lock(); });
  at("slider").addEventListener("input", cut);
  for (const kind of ["pointerdown", "pointermove"]) {
    at("after").addEventListener(kind, (event) => {
      if (!event.buttons) return;
      const box = at("after").getBoundingClientRect();
      at("slider").value = (100 * (event.clientX - box.left)) / box.width;
      cut();
    });
  }
  at("after").addEventListener("load", cut);
  addEventListener("resize", cut);
}

async function start() {
  document.body.classList.add("empty");
  listen();
  brush();
  lock();
  try {
    model = await call("/api/model");
  } catch (error) {
    at("model").textContent = "";
    at("error").textContent = error.message;
    return;
  }
  const kind = model.guided ? "follows lines that you draw" : "fills holes without lines";
  at("model").textContent = `Model ${model.name}, step ${model.step}, trained at ${model.image_size} × ${model.image_size}; it ${kind}.`;
  at("lines-tools").hidden = !model.guided;
  at("compare-choice").hidden = !model.guided || model.needs_lines;
  at("suggest").hidden = !model.suggests;
  at("learned").hidden = !model.learns_temperatures;
  at("constant").hidden = model.learns_temperatures;
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
