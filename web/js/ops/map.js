// The picture of all requests: queue | fleet | readers. The lower canvas is drawn when something
// has changed, the upper one, with flights and flashes, in each frame in which there are some.

const FLIGHT_S = 1.2;
const FLASH_S = 1.5;
const FURTHEST_S = 60; // of text ahead of a reader
const DRY_S = 0;
const SHORT_S = 0.5;
const MOST_TILES = 64; // more instances are cells without dots
const NEAR = 2; // pixels beside a dot that count as on it
const RING = 3; // between a dot that is pointed out and the ring around it
const HEIGHTS = [
  [2, 190],
  [4, 280],
  [12, 350],
  [32, 420],
];

/** The seconds of text that are ahead of a reader now; null before the answer. */
export function aheadOf(request, nowS) {
  return request.ahead === null ? null : request.ahead - (nowS - request.at);
}

/** Where everything lies in a picture of this size. */
export function layoutOf(count, width) {
  const narrow = width < 600;
  const left = narrow ? 36 : 64;
  const right = narrow ? 76 : Math.min(280, width * 0.24);
  const tiles = count <= MOST_TILES;
  const wanted = count <= 4 ? 1 : count <= 12 ? 2 : count <= 32 ? 4 : tiles ? 8 : 16;
  const columns = narrow ? Math.min(wanted, tiles ? 4 : 8) : wanted;
  const rows = Math.max(1, Math.ceil(count / columns));
  const height = Math.max(
    HEIGHTS.find(([most]) => count <= most)?.[1] ?? 440,
    rows * (narrow ? 50 : 38),
  );
  return {
    left,
    right,
    columns,
    rows,
    height,
    tiles,
    tileWidth: (width - left - right) / columns,
    tileHeight: height / rows,
    dot: count <= 4 ? 9 : count <= 12 ? 8 : 4,
    gap: count <= 12 ? 2 : 1.5,
  };
}

export class RequestMap {
  #lower;
  #upper;
  #free = 0; // width on the page
  #width = 0; // of the picture
  #layout = null;
  #order = []; // places, as the tiles lie
  #dots = []; // x, y, size and number of each

  constructor({ map, flights, feed, colours, still }) {
    Object.assign(this, { map, flights, feed, colours, still });
    this.#lower = map.getContext("2d");
    this.#upper = flights.getContext("2d");
    this.measure();
  }

  /** Draw requests and instances. */
  draw(nowS) {
    const { feed } = this;
    this.#fit();
    const g = this.#lower;
    const c = this.colours();
    g.clearRect(0, 0, this.#width, this.#layout.height);
    g.font = "11px Inter, system-ui, sans-serif";
    g.textBaseline = "top";
    const states = feed.hello?.states ?? [];
    const [queued, reasoning, , calling, , delivering] = states.keys();
    const tiles = new Map(feed.instances.map((one) => [one.place, []]));
    const queue = [];
    const readers = [];
    for (const request of feed.requests.values()) {
      const tile = request.state === delivering ? undefined : tiles.get(request.place);
      if (tile) tile.push(request);
      else if (request.state !== delivering) queue.push(request);
      const ahead = aheadOf(request, nowS);
      if (ahead !== null) readers.push([ahead, request.state === delivering, request.number]);
    }
    const dots = new Map();
    this.#dots = [];
    const add = (number, colour, x, y, size, hollow = false) => {
      this.#dots.push(x, y, size, number);
      const key = hollow ? `hollow ${colour}` : colour;
      let list = dots.get(key);
      if (!list) dots.set(key, (list = { colour, hollow, rects: [] }));
      list.rects.push(x, y, size);
    };
    this.#queue(g, c, queue, add);
    const colourOf = (request) => {
      if (request.state === queued) return c.muted;
      if (request.state === reasoning) return c.think;
      if (request.state === calling) return c["code-word"];
      const ahead = aheadOf(request, nowS);
      return ahead !== null && ahead < DRY_S ? c.bad : c.accent;
    };
    feed.instances.forEach((one, n) => {
      this.#tile(g, c, one, n, tiles.get(one.place), (request, x, y, size) => {
        const hollow = request.waits || request.state === queued;
        add(request.number, colourOf(request), x, y, size, hollow);
      });
    });
    this.#readers(g, c, readers, add);
    for (const { colour, hollow, rects } of dots.values()) {
      // One by one: a path of a thousand squares takes longer.
      g.lineWidth = 1;
      if (hollow) {
        g.strokeStyle = colour;
        for (let n = 0; n < rects.length; n += 3) {
          const inside = rects[n + 2] - 1;
          g.strokeRect(rects[n] + 0.5, rects[n + 1] + 0.5, inside, inside);
        }
      } else {
        g.fillStyle = colour;
        for (let n = 0; n < rects.length; n += 3) {
          g.fillRect(rects[n], rects[n + 1], rects[n + 2], rects[n + 2]);
        }
      }
    }
  }

  /** Draw what moves; false if nothing does. */
  drawFlights(nowS) {
    const { feed } = this;
    const g = this.#upper;
    const more = feed.trim(nowS);
    if (!this.#layout) return more;
    g.clearRect(0, 0, this.#width, this.#layout.height);
    const c = this.colours();
    for (const [place, sinceS] of feed.flashes) {
      const box = this.#box(place);
      if (!box) continue;
      g.globalAlpha = 1 - (nowS - sinceS) / FLASH_S;
      g.strokeStyle = c.bad;
      g.lineWidth = 2;
      g.strokeRect(box.x + 3, box.y + 3, box.width - 6, box.height - 6);
    }
    this.#point(g, c);
    if (!this.still()) {
      g.lineCap = "round";
      for (const flight of feed.flights) this.#flight(g, c, flight, nowS);
    }
    g.globalAlpha = 1;
    return more;
  }

  /** The number of the request whose dot is at a place of the picture, or null. */
  numberAt(x, y) {
    let found = null;
    let nearest = Infinity;
    for (let n = 0; n < this.#dots.length; n += 4) {
      const half = this.#dots[n + 2] / 2;
      const away = Math.max(Math.abs(this.#dots[n] + half - x), Math.abs(this.#dots[n + 1] + half - y));
      if (away <= half + NEAR && away < nearest) {
        nearest = away;
        found = this.#dots[n + 3];
      }
    }
    return found;
  }

  /** The name of the instance at a place of the picture, or null. */
  instanceAt(x, y) {
    const found = this.feed.instances.find((one) => {
      const box = this.#box(one.place);
      return box && x >= box.x && x < box.x + box.width && y >= box.y && y < box.y + box.height;
    });
    return found?.name ?? null;
  }

  /** Take the width that the page has now. */
  measure() {
    this.#free = this.map.parentElement.clientWidth;
  }

  /** A ring around each dot that is pointed out; around its cell, where there are no dots. */
  #point(g, c) {
    const { marked, requests } = this.feed;
    if (!marked.length) return;
    g.globalAlpha = 1;
    g.strokeStyle = c.ink;
    g.lineWidth = 2;
    const ring = (x, y, width, height) => g.strokeRect(x - RING, y - RING, width + 2 * RING, height + 2 * RING);
    for (let n = 0; n < this.#dots.length; n += 4) {
      const size = this.#dots[n + 2];
      if (marked.includes(this.#dots[n + 3])) ring(this.#dots[n], this.#dots[n + 1], size, size);
    }
    if (this.#layout.tiles) return;
    for (const number of marked) {
      const box = this.#box(requests.get(number)?.place);
      if (box) ring(box.x + 6, box.y + 6, box.width - 12, box.height - 12);
    }
  }

  #fit() {
    const width = this.#free;
    const count = this.feed.instances.length;
    const layout = layoutOf(count, width);
    const ratio = devicePixelRatio;
    this.#order = this.feed.instances.map((one) => one.place);
    if (
      width === this.#width &&
      layout.height === this.#layout?.height &&
      this.map.width === Math.round(width * ratio)
    ) {
      this.#layout = layout;
      return;
    }
    this.#width = width;
    this.#layout = layout;
    for (const canvas of [this.map, this.flights]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(layout.height * ratio);
      canvas.style.height = `${layout.height}px`;
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
  }

  #box(place) {
    const n = this.#order.indexOf(place);
    return n < 0 ? null : this.#boxOf(n);
  }

  #boxOf(n) {
    const { left, columns, tileWidth, tileHeight } = this.#layout;
    const x = left + (n % columns) * tileWidth;
    return { x, y: Math.floor(n / columns) * tileHeight, width: tileWidth, height: tileHeight };
  }

  #queue(g, c, queue, add) {
    const { dot, left, height } = this.#layout;
    const pitch = dot + 2;
    const across = Math.max(1, Math.floor((left - 12) / pitch));
    const fitting = across * Math.floor((height - 34) / pitch);
    g.fillStyle = c.muted;
    g.fillText("queue", 2, 3);
    queue.slice(0, fitting).forEach(({ number }, n) => {
      add(number, c.muted, 2 + (n % across) * pitch, 20 + Math.floor(n / across) * pitch, dot);
    });
    if (queue.length > fitting) g.fillText(`+${queue.length - fitting}`, 2, height - 12);
  }

  #tile(g, c, one, n, requests, add) {
    const { tiles, dot, gap } = this.#layout;
    const box = this.#boxOf(n);
    const x = box.x + 3;
    const y = box.y + 3;
    const width = box.width - 6;
    const height = box.height - 6;
    const total = Math.max(1, one.kv_blocks);
    const used = Math.min(1, one.kv_used / total);
    if (!tiles) {
      g.globalAlpha = 0.12 + 0.88 * used;
      g.fillStyle = c.think;
      g.fillRect(x, y, width, height);
      g.globalAlpha = 1;
      if (width > 34 && height > 26) {
        g.fillStyle = used > 0.45 ? c.raised : c.ink;
        g.fillText(one.name.replace(/^worker-/, ""), x + 4, y + 4);
        g.fillText(`${Math.round(used * 100)}%`, x + 4, y + 16);
      }
      if (one.state === "serving") return;
      g.strokeStyle = one.state === "absent" ? c.bad : c.ink;
      g.setLineDash([4, 3]);
      g.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
      g.setLineDash([]);
      return;
    }
    const serving = one.state === "serving";
    g.strokeStyle = serving ? c.line : one.state === "absent" ? c.bad : c.think;
    g.lineWidth = 1;
    g.setLineDash(serving ? [] : [4, 3]);
    g.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
    g.setLineDash([]);
    const thick = Math.min(8, Math.max(3, height * 0.13));
    const barY = y + height - thick - 4;
    g.fillStyle = c.line;
    g.fillRect(x + 4, barY, width - 8, thick);
    let at = x + 4;
    // Blocks that are shared count in each phase: the bar is as long as what is used.
    const phases = one.kv_reasoning + one.kv_answering;
    const scale = phases ? Math.min(1, one.kv_used / phases) : 0;
    for (const [blocks, colour] of [
      [one.kv_reasoning * scale, c.think],
      [one.kv_answering * scale, c.accent],
      [one.kv_held, c.muted],
    ]) {
      const part = Math.min(x + width - 4 - at, (blocks / total) * (width - 8));
      if (part <= 0) continue;
      g.fillStyle = colour;
      g.fillRect(at, barY, part, thick);
      at += part;
    }
    const named = height > 30 && width > 44;
    if (named) this.#label(g, c, one, requests.length, used, x, y, width);
    const top = y + (named ? 18 : 4);
    const across = Math.max(1, Math.floor((width - 8) / (dot + gap)));
    const rows = Math.floor((barY - top - 1) / (dot + gap));
    let slot = 0;
    const most = across * Math.max(0, rows);
    const byState = new Map();
    for (const request of requests) {
      const list = byState.get(request.state);
      if (list) list.push(request);
      else byState.set(request.state, [request]);
    }
    for (const state of [...byState.keys()].sort().reverse()) {
      for (const request of byState.get(state)) {
        if (slot >= most) return;
        const dotX = x + 4 + (slot % across) * (dot + gap);
        add(request, dotX, top + Math.floor(slot / across) * (dot + gap), dot);
        slot += 1;
      }
    }
  }

  #label(g, c, one, requests, used, x, y, width) {
    const wide = width > 260;
    const short = one.name.replace(/^worker-/, "");
    const state = one.state === "serving" ? "" : ` · ${one.state}`;
    const full = wide ? one.name + state : width > 110 ? short + state : short;
    g.fillStyle = one.state === "serving" ? c.muted : c.ink;
    g.fillText(full, x + 5, y + 4);
    const percent = `${Math.round(used * 100)}%`;
    const counts = `${one.running_reasoning} thinking · ${one.running_answering} answering · KV ${percent}`;
    g.fillStyle = c.muted;
    g.textAlign = "right";
    g.fillText(wide ? counts : percent, x + width - 5, y + 4);
    g.textAlign = "left";
  }

  #readers(g, c, readers, add) {
    const { right, height } = this.#layout;
    const x0 = this.#width - right + 16;
    const width = right - 24;
    const scale = (s) => x0 + (s <= 0 ? 0 : Math.min(1, Math.log1p(s) / Math.log1p(FURTHEST_S))) * width;
    const floor = height - 20;
    g.fillStyle = c["bad-soft"];
    g.fillRect(x0 - 6, 18, scale(SHORT_S) - x0 + 6, floor - 18);
    g.fillStyle = c.muted;
    g.fillText(width > 150 ? "readers: seconds of text ahead" : "readers", x0 - 6, 3);
    for (const tick of width > 150 ? [0, 1, 5, 20, 60] : [0, 60]) {
      const x = scale(tick);
      g.fillRect(x, floor, 1, 4);
      g.textAlign = tick === FURTHEST_S ? "right" : "left";
      g.fillText(tick === FURTHEST_S ? "60+ s" : String(tick), x, floor + 7);
    }
    g.textAlign = "left";
    const bin = 5;
    const stacks = new Map();
    for (const [ahead] of readers) {
      const n = Math.round((scale(ahead) - x0) / bin);
      stacks.set(n, (stacks.get(n) ?? 0) + 1);
    }
    const tallest = Math.max(1, ...stacks.values());
    const pitch = Math.min(5, (floor - 22) / tallest);
    const size = Math.max(0.6, Math.min(4, pitch - 0.4));
    const heights = new Map();
    for (const kind of [0, 1, 2]) {
      for (const [ahead, onlyRead, number] of readers) {
        const own = onlyRead ? 2 : ahead < DRY_S ? 0 : 1;
        if (own !== kind) continue;
        const n = Math.round((scale(ahead) - x0) / bin);
        const level = heights.get(n) ?? 0;
        heights.set(n, level + 1);
        add(number, [c.bad, c.accent, c.good][kind], x0 + n * bin, floor - (level + 1) * pitch, size);
      }
    }
  }

  #flight(g, c, flight, nowS) {
    const from = this.#box(flight.from);
    const to = this.#box(flight.to);
    if (!from || !to) return;
    const u = (nowS - flight.begunS) / FLIGHT_S;
    const e = Math.min(1, u);
    const sx = from.x + from.width / 2;
    const sy = from.y + from.height / 2;
    const ex = to.x + to.width / 2;
    const ey = to.y + to.height / 2;
    const cx = (sx + ex) / 2 + (ey - sy) * 0.2;
    const cy = (sy + ey) / 2 - (ex - sx) * 0.2 - 14;
    const mx = (1 - e) * sx + e * cx;
    const my = (1 - e) * sy + e * cy;
    const px = (1 - e) * mx + e * ((1 - e) * cx + e * ex);
    const py = (1 - e) * my + e * ((1 - e) * cy + e * ey);
    g.globalAlpha = u < 1 ? 0.75 : Math.max(0, ((1.6 - u) / 0.6) * 0.75);
    g.strokeStyle = g.fillStyle = c.ink;
    g.lineWidth = 0.8 + Math.min(1, flight.tokens / 8000) * 2;
    g.beginPath();
    g.moveTo(sx, sy);
    g.quadraticCurveTo(mx, my, px, py);
    g.stroke();
    g.beginPath();
    g.arc(px, py, 3, 0, 7);
    g.fill();
  }
}
