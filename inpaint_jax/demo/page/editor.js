// The photo to draw on: a hole and lines in two layers, strokes that can be taken back, mouse, touch, pen and keyboard.
//
// A stroke is {layer, erase, width, points}, in pixels of the canvas. The layers are drawn from the list of strokes, so
// that undo needs no copies of the picture. One finger draws, two zoom and move, and so do Ctrl + wheel, Space-drag and
// the middle button.

import { View } from "./view.js";

const HOLE = "#0072B2"; // Okabe and Ito's, told apart by colour-blind visitors too; white lines stand out on it
const LINE_WIDTH = 3; // of the photo as it is shown, at 1024 pixels
const STEP = 4; // of the keys, in pixels of the canvas; more if it has more than 1024
const FAR = 24;
const SLIP = 500; // milliseconds: what a finger drew in less before a second one came was no stroke
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Editor extends EventTarget {
  // "change" whenever there is another drawing, "stroke" when there is a new one, "brush" when its size should change,
  // "fill", "undo" and "redo" when the keyboard asks for it. The page sets `tool` and `brush` itself.
  constructor(canvas) {
    super();
    this.canvas = canvas;
    this.view = new View(canvas.parentElement, canvas);
    this.tool = "hole";
    this.brush = 48;
    this.strokes = [];
    this.undone = [];
    this.current = null;
    this.pointer = null;
    this.byHand = false; // whether a mouse, finger or pen put the pointer there, not the keys
    this.space = null; // "held", or "used" for something else than putting the brush down
    this.lift = false; // whether letting go of Space lifts the brush
    this.panning = null; // the last event of the pointer that moves the view
    this.fingers = new Map(); // pointerId -> its last event
    this.pinching = false;
    this.photo = null;
    this.original = null; // shown instead while the page sets it
    this.locked = false;
    this.frame = 0;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => this.#release(event));
    canvas.addEventListener("pointerleave", () => {
      if (this.current) return;
      this.pointer = null;
      this.byHand = false;
      this.redraw();
    });
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("mousedown", (event) => { if (event.button === 1) event.preventDefault(); }); // no auto-scroll
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("keyup", (event) => { if (event.key === " ") this.#spaceUp(); });
    canvas.addEventListener("blur", () => { this.#spaceIs(null); this.#up(); });
  }

  // With a drawing from `drawing`, or an image that is the first part of the hole.
  open(photo, { hole = null, drawing = null } = {}) {
    this.photo = photo;
    this.canvas.width = photo.width;
    this.canvas.height = photo.height;
    this.layers = { hole: this.#layer(), lines: this.#layer() };
    this.scratch = this.#layer();
    this.strokes = [...(drawing?.strokes ?? (hole ? [{ layer: "hole", image: hole }] : []))];
    this.undone = [...(drawing?.undone ?? [])];
    this.current = this.pointer = null;
    this.#repeat();
  }

  get drawing() { return { strokes: this.strokes, undone: this.undone }; }
  get canUndo() { return this.strokes.length > 0; }
  get canRedo() { return this.undone.length > 0; }

  undo() {
    this.#up();
    if (!this.locked && this.strokes.length) { this.undone.push(this.strokes.pop()); this.#repeat(); }
  }

  redo() {
    this.#up();
    if (!this.locked && this.undone.length) { this.strokes.push(this.undone.pop()); this.#repeat(); }
  }

  clear() {
    this.#up();
    if (!this.locked && this.strokes.length) this.#add({ layer: "both", clear: true });
  }

  // White on transparent, of any size; to "hole" or "lines".
  addImage(layer, image) {
    this.#up();
    this.#add({ layer, image });
  }

  peek(original) {
    this.original = original;
    this.redraw();
  }

  isEmpty(layer) {
    const { width, height } = this.canvas;
    const { data } = this.#visible(layer).getImageData(0, 0, width, height);
    for (let at = 3; at < data.length; at += 4) if (data[at] > 127) return false;
    return true;
  }

  // White on black, as a PNG, of the canvas's size or another one. Of the lines, those inside the hole.
  png(layer, size = this.canvas) {
    const { width, height } = this.canvas;
    const out = this.#layer();
    const from = this.#visible(layer).getImageData(0, 0, width, height).data;
    const picture = out.createImageData(width, height);
    for (let at = 0; at < from.length; at += 4) {
      picture.data.fill(from[at + 3] > 127 ? 255 : 0, at, at + 3);
      picture.data[at + 3] = 255;
    }
    out.putImageData(picture, 0, 0);
    let { canvas } = out;
    if (size.width !== width || size.height !== height) {
      const large = this.#layer(size);
      large.imageSmoothingEnabled = false;
      large.drawImage(canvas, 0, 0, size.width, size.height);
      canvas = large.canvas;
    }
    return new Promise((resolve, reject) => {
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("This browser cannot save so large a picture."))), "image/png");
    });
  }

  #layer({ width, height } = this.canvas) {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    return canvas.getContext("2d", { willReadFrequently: true });
  }

  #visible(layer) {
    return layer === "hole" ? this.layers.hole : this.#linesInHole();
  }

  #linesInHole() {
    const { scratch, layers, canvas } = this;
    scratch.globalCompositeOperation = "copy";
    scratch.drawImage(layers.lines.canvas, 0, 0);
    scratch.globalCompositeOperation = "destination-in";
    scratch.drawImage(layers.hole.canvas, 0, 0, canvas.width, canvas.height);
    return scratch;
  }

  #add(stroke) {
    this.#apply(stroke);
    this.#push(stroke);
  }

  #push(stroke) {
    this.strokes.push(stroke);
    this.undone = [];
    this.#changed();
    this.dispatchEvent(new CustomEvent("stroke", { detail: stroke }));
  }

  #repeat() {
    for (const layer of Object.values(this.layers)) layer.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (const stroke of this.strokes) this.#apply(stroke);
    this.#changed();
  }

  // From a point of the stroke on. Piece by piece, whether it is being drawn or drawn again: borders come out the same.
  #apply(stroke, from = 0) {
    const { width, height } = this.canvas;
    if (stroke.clear) {
      for (const layer of Object.values(this.layers)) layer.clearRect(0, 0, width, height);
      return;
    }
    const layer = this.layers[stroke.layer];
    layer.globalCompositeOperation = stroke.erase ? "destination-out" : "source-over";
    if (stroke.image) {
      layer.drawImage(stroke.image, 0, 0, width, height);
      return;
    }
    layer.strokeStyle = "#fff";
    layer.lineWidth = stroke.width;
    layer.lineCap = "round";
    stroke.points.forEach(([x, y], i, points) => {
      if (i < from) return;
      layer.beginPath();
      layer.moveTo(...(points[i - 1] ?? [x - 0.01, y])); // the first one is a dot
      layer.lineTo(x, y);
      layer.stroke();
    });
  }

  #changed() {
    this.redraw();
    this.dispatchEvent(new Event("change"));
  }

  get #unit() { return Math.max(this.canvas.width, this.canvas.height) / 1024; }

  get #width() {
    const unit = this.#unit;
    if (this.tool === "line") return Math.max(2, LINE_WIDTH * unit);
    return this.tool === "line-eraser" ? Math.max(8, 28 * unit) : this.brush * unit;
  }

  #start(point) {
    if (this.locked || !this.photo) return;
    const layer = this.tool.startsWith("line") ? "lines" : "hole";
    this.current = { layer, erase: this.tool.endsWith("eraser"), width: this.#width, points: [point] };
    this.#apply(this.current);
    this.redraw();
  }

  #extend(point) {
    const { points } = this.current;
    const [x, y] = points[points.length - 1];
    if (x === point[0] && y === point[1]) return;
    points.push(point);
    this.#apply(this.current, points.length - 1);
  }

  #up() {
    if (!this.current) return;
    const stroke = this.current;
    this.current = null;
    this.#push(stroke);
  }

  // Takes back what is being drawn, for good.
  #drop() {
    if (!this.current) return;
    this.current = null;
    this.#repeat();
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.canvas.width, ((event.clientY - box.top) / box.height) * this.canvas.height];
  }

  #down(event) {
    if (event.pointerType === "touch") {
      this.fingers.set(event.pointerId, event);
      if (this.fingers.size > 1) {
        if (event.timeStamp - this.began < SLIP) this.#drop();
        else this.#up();
        this.pinching = true;
      }
    }
    if (this.pinching) return;
    if (event.button === 1 || (event.button === 0 && this.space)) {
      this.canvas.setPointerCapture(event.pointerId);
      this.panning = event;
      if (this.space) this.#spaceIs("used");
      return;
    }
    if (event.button !== 0 || !event.isPrimary) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointer = this.#at(event);
    this.byHand = true;
    this.began = event.timeStamp;
    this.#start(this.pointer);
  }

  #move(event) {
    if (this.pinching) this.#pinch(event);
    else if (this.panning?.pointerId === event.pointerId) {
      this.view.move(event.clientX - this.panning.clientX, event.clientY - this.panning.clientY);
      this.panning = event;
    }
    if (this.pinching || !event.isPrimary) return;
    this.pointer = this.#at(event);
    this.byHand = true;
    if (this.current && !this.panning) {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const one of events.length ? events : [event]) this.#extend(this.#at(one));
    }
    this.redraw();
  }

  #release(event) {
    this.fingers.delete(event.pointerId);
    if (this.panning?.pointerId === event.pointerId) this.panning = null;
    else if (event.isPrimary && !this.pinching) this.#up();
    if (this.pinching && this.fingers.size === 0) {
      this.pinching = false;
      this.pointer = null;
    }
  }

  // What lies under the two fingers stays under them.
  #pinch(event) {
    const before = this.fingers.get(event.pointerId);
    const other = [...this.fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
    if (!before) return;
    this.fingers.set(event.pointerId, event);
    if (!other) return;
    const apart = (finger) => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY);
    this.view.move((event.clientX - before.clientX) / 2, (event.clientY - before.clientY) / 2);
    this.view.zoom(
      apart(event) / Math.max(1, apart(before)),
      (event.clientX + other.clientX) / 2,
      (event.clientY + other.clientY) / 2,
    );
    this.redraw();
  }

  #wheel(event) {
    if (event.ctrlKey || event.metaKey) {
      const pixels = event.deltaMode === 0 ? event.deltaY : 33 * event.deltaY; // in lines
      this.view.zoom(Math.exp(-Math.max(-200, Math.min(200, pixels)) / 300), event.clientX, event.clientY);
      this.redraw();
    } else if (event.altKey) {
      this.dispatchEvent(new CustomEvent("brush", { detail: event.deltaY < 0 ? 1 : -1 }));
    } else return;
    event.preventDefault();
  }

  #spaceIs(space) {
    this.space = space;
    this.canvas.classList.toggle("grab", space !== null);
  }

  #spaceUp() {
    const { space, lift } = this;
    this.#spaceIs(null);
    this.lift = false;
    if (space === "used" ? lift : this.current) this.#up();
    else if (space === "held" && !this.byHand) this.#start((this.pointer ??= this.#middle));
  }

  get #middle() { return [this.canvas.width / 2, this.canvas.height / 2]; }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { width, height } = this.canvas;
    const move = MOVES[event.key];
    if (move) {
      const far = (event.shiftKey ? FAR : STEP) * Math.max(1, this.#unit);
      const [x, y] = (this.pointer ??= this.#middle);
      if (this.space === "held" && !this.current) {
        this.#spaceIs("used");
        this.lift = true;
        this.#start(this.pointer);
      }
      const next = [Math.min(width, Math.max(0, x + far * move[0])), Math.min(height, Math.max(0, y + far * move[1]))];
      this.pointer = next;
      this.byHand = false;
      if (this.current) this.#extend(next);
      this.redraw();
    } else if (event.key === " ") {
      if (!event.repeat) this.#spaceIs("held");
    } else if (event.key === "Enter") {
      this.#up();
      this.dispatchEvent(new Event("fill"));
    } else if (event.key.toLowerCase() === "z") {
      this.#up();
      this.dispatchEvent(new Event(event.shiftKey ? "redo" : "undo"));
    } else return;
    event.preventDefault();
  }

  redraw() {
    if (this.photo) this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.#draw(); });
  }

  #draw() {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    context.globalAlpha = 1;
    context.drawImage(this.original ?? this.photo, 0, 0, width, height);
    if (this.original) return;

    const tinted = (layer, colour, alpha) => {
      const { scratch } = this;
      scratch.globalCompositeOperation = "copy";
      scratch.drawImage(layer.canvas, 0, 0);
      scratch.globalCompositeOperation = "source-in";
      scratch.fillStyle = colour;
      scratch.fillRect(0, 0, width, height);
      context.globalAlpha = alpha;
      context.drawImage(scratch.canvas, 0, 0);
      context.globalAlpha = 1;
    };
    tinted(this.layers.hole, HOLE, 0.7);
    tinted(this.layers.lines, "#fff", 0.35); // outside the hole lines are faint: they do not count there
    context.drawImage(this.#linesInHole().canvas, 0, 0);

    if (this.pointer && !this.locked) {
      const [x, y] = this.pointer;
      const pixel = width / this.canvas.getBoundingClientRect().width; // of the screen
      for (const [colour, wide] of [["#000", 3], ["#fff", 1.5]]) {
        context.strokeStyle = colour;
        context.lineWidth = wide * pixel;
        context.beginPath();
        context.arc(x, y, Math.max(2 * pixel, this.#width / 2), 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }
}
