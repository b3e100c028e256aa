// What part of the canvas is seen. CSS moves and enlarges it inside a frame that stays where it is, so that the place of
// a pointer on the canvas needs no other arithmetic than before.

const MOST = 16;

export class View {
  constructor(frame, canvas) {
    this.frame = frame;
    this.canvas = canvas;
    this.reset();
    addEventListener("resize", () => this.#show());
  }

  reset() {
    this.scale = 1;
    this.x = this.y = 0; // of the canvas's corner in the frame
    this.#show();
  }

  // Enlarges about a point of the window, the frame's middle by default.
  zoom(factor, clientX, clientY) {
    const box = this.frame.getBoundingClientRect();
    const x = clientX === undefined ? box.width / 2 : clientX - box.left;
    const y = clientY === undefined ? box.height / 2 : clientY - box.top;
    const scale = Math.min(MOST, Math.max(1, this.scale * factor));
    const by = scale / this.scale;
    this.scale = scale;
    this.x = x - by * (x - this.x);
    this.y = y - by * (y - this.y);
    this.#show();
  }

  move(right, down) {
    this.x += right;
    this.y += down;
    this.#show();
  }

  #show() {
    const { clientWidth, clientHeight } = this.frame;
    this.x = Math.min(0, Math.max(clientWidth * (1 - this.scale), this.x));
    this.y = Math.min(0, Math.max(clientHeight * (1 - this.scale), this.y));
    this.canvas.style.transform = this.scale === 1 ? "" : `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
  }
}
