// The flame view: spans of the same name below the same names are one box, as wide as their time.

import { h, replace } from "./dom.js";
import { count, duration, percent } from "./format.js";
import { look } from "./model.js";

const ROW = 20;
const MAX_DEPTH = 200;

export class Flame {
  constructor(select) {
    this.select = select;
    this.canvas = h("canvas", { class: "flame-canvas", tabIndex: 0, role: "img", "aria-label": "Time by name; the view Names has the same as a table" });
    this.tip = h("div", { class: "flame-tip", hidden: true });
    this.crumbs = h("div", { class: "crumbs" });
    this.element = h("div", { class: "flame" }, this.crumbs, h("div", { class: "flame-scroll" }, this.canvas), this.tip);
    this.focus = null;
    this.canvas.addEventListener("mousemove", (event) => this.hover(event));
    this.canvas.addEventListener("mouseleave", () => (this.tip.hidden = true));
    this.canvas.addEventListener("click", (event) => {
      const box = this.boxAt(event);
      if (!box) return;
      this.select(box.frame.nodes[0]);
      this.focus = box.frame;
      this.draw();
    });
    new ResizeObserver(() => this.top && this.draw()).observe(this.element);
  }

  show(model) {
    const path = this.focus && pathOf(this.focus);
    this.top = fold(model);
    this.focus = path ? find(this.top, path) : null;
    this.draw();
  }

  draw() {
    const top = this.focus ?? this.top;
    const width = this.element.clientWidth - 24;
    if (width <= 0) return;
    const boxes = [];
    // Above: the way to the focus, each as wide as everything.
    const above = [];
    for (let frame = top; frame; frame = frame.parent) above.unshift(frame);
    above.forEach((frame, depth) => boxes.push({ frame, depth, x: 0, w: width }));
    const stack = [{ frame: top, depth: above.length - 1, x: 0, w: width }];
    let depth = above.length;
    while (stack.length > 0) {
      const box = stack.pop();
      let x = box.x;
      for (const kid of box.frame.kids.values()) {
        const w = (box.w * kid.total) / Math.max(box.frame.total, box.frame.kidsTotal, 1);
        if (w >= 0.7 && box.depth + 1 < MAX_DEPTH) {
          const next = { frame: kid, depth: box.depth + 1, x, w };
          boxes.push(next);
          stack.push(next);
          depth = Math.max(depth, next.depth + 1);
        }
        x += w;
      }
    }
    this.boxes = boxes;
    this.paint(width, depth * ROW + 2);
    const names = above.map((frame) => h("button", { type: "button", onclick: () => {
      this.focus = frame.parent ? frame : null;
      this.draw();
    } }, frame.name));
    replace(this.crumbs, names, h("small", {}, "width is time summed over spans of the same name; parallel spans add up. Click zooms in."));
  }

  paint(width, height) {
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.font = `11.5px ${getComputedStyle(document.body).fontFamily}`;
    context.textBaseline = "middle";
    const ink = colour("--on-bar");
    for (const { frame, depth, x, w } of this.boxes) {
      const y = depth * ROW;
      context.fillStyle = frame.errors > 0 ? colour("--error-bar") : colour(`--k-${frame.look}`);
      context.fillRect(x, y, Math.max(w - 1, 0.7), ROW - 1);
      if (w < 28) continue;
      context.fillStyle = ink;
      context.fillText(cut(context, frame.count > 1 ? `${frame.name} ×${frame.count}` : frame.name, w - 9), x + 5, y + ROW / 2);
    }
  }

  boxAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    return this.boxes?.findLast((one) => x >= one.x && x < one.x + one.w && Math.floor(y / ROW) === one.depth);
  }

  hover(event) {
    const box = this.boxAt(event);
    this.tip.hidden = !box;
    if (!box) return;
    const { frame } = box;
    replace(
      this.tip,
      h("b", {}, frame.name),
      h("span", {}, `${duration(frame.total)} in ${count(frame.count)} spans, ${percent(frame.total, this.top.total)} of all`),
      frame.errors > 0 && h("span", { class: "bad" }, `${frame.errors} errors`),
    );
    const outer = this.element.getBoundingClientRect();
    this.tip.style.left = `${Math.min(event.clientX - outer.left + 12, outer.width - 280)}px`;
    this.tip.style.top = `${event.clientY - outer.top + 16}px`;
  }
}

function fold(model) {
  const make = (name, parent) => ({ name, parent, kids: new Map(), total: 0, kidsTotal: 0, count: 0, errors: 0, nodes: [], look: "span" });
  const top = make("all", null);
  const stack = model.roots.map((node) => [node, top]);
  while (stack.length > 0) {
    const [node, above] = stack.pop();
    const { name } = node.span;
    if (!above.kids.has(name)) above.kids.set(name, make(name, above));
    const frame = above.kids.get(name);
    const took = node.end - node.start;
    frame.total += took;
    above.kidsTotal += took;
    frame.count += 1;
    frame.errors += node.status === "error" ? 1 : 0;
    if (frame.nodes.length === 0) frame.nodes.push(node);
    frame.look = look(node.span);
    for (const kid of node.kids) stack.push([kid, frame]);
  }
  top.total = top.kidsTotal;
  top.count = model.order.length;
  top.nodes.push(model.roots[0]);
  sort(top);
  return top;
}

function sort(top) {
  const stack = [top];
  while (stack.length > 0) {
    const frame = stack.pop();
    frame.kids = new Map([...frame.kids].sort(([, a], [, b]) => b.total - a.total));
    stack.push(...frame.kids.values());
  }
}

function pathOf(frame) {
  const path = [];
  for (let at = frame; at.parent; at = at.parent) path.unshift(at.name);
  return path;
}

function find(top, path) {
  let frame = top;
  for (const name of path) frame = frame?.kids.get(name);
  return frame === top ? null : frame;
}

function cut(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let [low, high] = [0, text.length];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (context.measureText(`${text.slice(0, middle)}…`).width <= width) low = middle;
    else high = middle - 1;
  }
  return low > 0 ? `${text.slice(0, low)}…` : "";
}
