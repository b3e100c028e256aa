// The result: variants to choose from, a slider over the original, what to save.

import { decoded } from "./server.js";

const at = (id) => document.getElementById(id);

export class Result {
  constructor() {
    this.variants = [];
    this.chosen = 0;
    this.addresses = []; // of the pictures in memory, to be given back
    at("slider").addEventListener("input", () => this.#cut());
    for (const kind of ["pointerdown", "pointermove"]) {
      at("after").addEventListener(kind, (event) => {
        if (!event.buttons) return;
        const box = at("after").getBoundingClientRect();
        at("slider").value = (100 * (event.clientX - box.left)) / box.width;
        this.#cut();
      });
    }
    at("after").addEventListener("load", () => this.#cut());
    addEventListener("resize", () => this.#cut());
  }

  // From the server's answer. `file` is the result as it is saved, `shown` what browsers can show of it.
  static variants(made) {
    return made.map(({ image, type, shown, ...rest }) => {
      const file = decoded(image, type);
      return { ...rest, file, shown: shown ? decoded(shown) : file };
    });
  }

  get file() { return this.variants[this.chosen]?.file; }

  hide() {
    this.variants = [];
    at("result").hidden = true;
  }

  // Filled all over. They may be of several steps since the original.
  show(variants, original, chosen = 0) {
    for (const address of this.addresses) URL.revokeObjectURL(address);
    this.addresses = [];
    const address = (blob) => {
      this.addresses.push(URL.createObjectURL(blob));
      return this.addresses.at(-1);
    };
    this.variants = variants.map((variant) => ({ ...variant, address: address(variant.shown), save: address(variant.file) }));
    this.size = `${original.width} × ${original.height} pixels`;
    const [given, preview] = [address(original.file), address(original.preview)];
    at("before").onerror = () => { at("before").onerror = null; at("before").src = preview; }; // TIFF and the like
    at("before").src = given;
    at("slider").value = 0;
    at("variants").hidden = variants.length < 2;
    at("variants").replaceChildren(
      ...variants.map((variant, i) => {
        const label = document.createElement("label");
        const input = Object.assign(document.createElement("input"), { type: "radio", name: "variant", value: i, checked: i === chosen });
        input.addEventListener("change", () => this.#choose(i));
        const text = Object.assign(document.createElement("span"), { textContent: variant.label });
        label.append(input, text);
        return label;
      }),
    );
    at("result").hidden = false;
    this.#choose(chosen);
  }

  peek(on) {
    at("result").classList.toggle("peek", on);
  }

  #choose(i) {
    this.chosen = i;
    const { address, save, name, notes, grown, temperatures, worked_at: [height, width], seconds, label } = this.variants[i];
    at("after").src = address;
    at("after").alt = `The photo with its hole filled${this.variants.length > 1 ? `, ${label}` : ""}`;
    at("download").href = save;
    at("download").download = name;
    const rim = grown ? `The hole was grown by ${grown} pixel${grown === 1 ? "" : "s"}. ` : "";
    const lost = notes.map((note) => `${note[0].toUpperCase()}${note.slice(1)}.`).join(" ");
    at("made").textContent = `${this.size}, filled in a window of ${width} × ${height} in ${seconds} s. ${rim}${lost}`;
    at("heads").hidden = temperatures.length === 0; // other systems than the paper's, and other methods, have none
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

  #cut() {
    at("comparison").style.setProperty("--at", `${at("slider").value}%`);
    at("cut").hidden = at("slider").value === "0";
    at("cut").style.height = `${at("after").clientHeight}px`;
    at("before").style.width = `${at("after").clientWidth}px`;
    at("before").style.height = `${at("after").clientHeight}px`;
  }
}
