// The photo to draw on: a hole and lines in two layers, strokes that can be taken back, mouse, touch, pen and keyboard.
//
// A stroke is {layer, erase, width, points}, in pixels of the canvas. The layers are drawn from the list of strokes, so
// that undo needs no copies of the picture.

const HOLE = "#0072B2"; // Okabe and Ito's, told apart by colour-blind visitors too; white lines stand out on it
const LINE_WIDTH = 3; // of the photo as it is shown, at 1024 pixels
const STEP = 4;
const FAR = 24;
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Editor extends EventTarget {
  // "change" whenever there is another drawing, "tool" never: the page sets `tool` and `brush` itself.
  constructor(canvas) {
    super();
    this.canvas = canvas;
    this.tool = "hole";
    this.brush = 48;
    this.strokes = [];
    this.undone = [];
    this.current = null;
    this.pointer = null;
    this.photo = null;
    this.locked = false;
    this.frame = 0;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => { if (event.isPrimary) this.#up(); }); // not a second finger's
    }
    canvas.addEventListener("pointerleave", () => { if (!this.current) { this.pointer = null; this.#render(); } });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#up());
  }

  open(photo, hole) {
    this.photo = photo;
    this.canvas.width = photo.width;
    this.canvas.height = photo.height;
    this.layers = { hole: this.#layer(), lines: this.#layer() };
    this.scratch = this.#layer();
    this.strokes = hole ? [{ layer: "hole", image: hole }] : [];
    this.undone = [];
    this.current = this.pointer = null;
    this.#redraw();
  }

  get canUndo() { return this.strokes.length > 0; }
  get canRedo() { return this.undone.length > 0; }

  undo() {
    this.#up();
    if (!this.locked && this.strokes.length) { this.undone.push(this.strokes.pop()); this.#redraw(); }
  }

  redo() {
    this.#up();
    if (!this.locked && this.undone.length) { this.strokes.push(this.undone.pop()); this.#redraw(); }
  }

  clear() {
    this.#up();
    if (!this.locked && this.strokes.length) this.#add({ layer: "both", clear: true });
  }

  // White on transparent, of any size.
  addLines(image) {
    this.#up();
    this.#add({ layer: "lines", image });
  }

  isEmpty(layer) {
    const { width, height } = this.canvas;
    const { data } = this.#visible(layer).getImageData(0, 0, width, height);
    for (let at = 3; at < data.length; at += 4) if (data[at] > 127) return false;
    return true;
  }

  // White on black, as a PNG. Of the lines, those inside the hole.
  png(layer) {
    const { width, height } = this.canvas;
    const out = this.#layer();
    const from = this.#visible(layer).getImageData(0, 0, width, height).data;
    const picture = out.createImageData(width, height);
    for (let at = 0; at < from.length; at += 4) {
      picture.data.fill(from[at + 3] > 127 ? 255 : 0, at, at + 3);
      picture.data[at + 3] = 255;
    }
    out.putImageData(picture, 0, 0);
    return new Promise((resolve) => out.canvas.toBlob(resolve, "image/png"));
  }

  #layer() {
    const canvas = document.createElement("canvas");
    canvas.width = this.canvas.width;
    canvas.height = this.canvas.height;
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
    this.strokes.push(stroke);
    this.undone = [];
    this.#apply(stroke);
    this.#changed();
  }

  #redraw() {
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
    this.#render();
    this.dispatchEvent(new Event("change"));
  }

  get #width() {
    const unit = Math.max(this.canvas.width, this.canvas.height) / 1024;
    if (this.tool === "line") return Math.max(2, LINE_WIDTH * unit);
    return this.tool === "line-eraser" ? Math.max(8, 28 * unit) : this.brush * unit;
  }

  #start(point) {
    if (this.locked || !this.photo) return;
    const layer = this.tool.startsWith("line") ? "lines" : "hole";
    this.current = { layer, erase: this.tool.endsWith("eraser"), width: this.#width, points: [point] };
    this.#apply(this.current);
    this.#render();
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
    this.strokes.push(this.current);
    this.undone = [];
    this.current = null;
    this.#changed();
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.canvas.width, ((event.clientY - box.top) / box.height) * this.canvas.height];
  }

  #down(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointer = this.#at(event);
    this.#start(this.pointer);
  }

  #move(event) {
    if (!event.isPrimary) return;
    this.pointer = this.#at(event);
    if (this.current) {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const one of events.length ? events : [event]) this.#extend(this.#at(one));
    }
    this.#render();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { width, height } = this.canvas;
    const move = MOVES[event.key];
    if (move || event.key === " ") this.pointer ??= [width / 2, height / 2];
    if (move) {
      const far = event.shiftKey ? FAR : STEP;
      const [x, y] = this.pointer;
      const next = [Math.min(width, Math.max(0, x + far * move[0])), Math.min(height, Math.max(0, y + far * move[1]))];
      this.pointer = next;
      if (this.current) this.#extend(next);
      this.#render();
    } else if (event.key === " ") {
      if (event.repeat) { /* it is held down while the arrows steer: nothing new */ }
      else if (this.current) this.#up();
      else this.#start(this.pointer);
    } else if (event.key === "Enter") {
      this.#up();
      this.dispatchEvent(new Event("fill"));
    } else if (event.key.toLowerCase() === "z") {
      if (event.shiftKey) this.redo();
      else this.undo();
    } else return;
    event.preventDefault();
  }

  #render() {
    if (this.photo) this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.#draw(); });
  }

  #draw() {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    context.globalAlpha = 1;
    context.drawImage(this.photo, 0, 0);

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
      for (const [colour, wide] of [["#000", 3], ["#fff", 1.5]]) {
        context.strokeStyle = colour;
        context.lineWidth = wide;
        context.beginPath();
        context.arc(x, y, Math.max(2, this.#width / 2), 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }
}
