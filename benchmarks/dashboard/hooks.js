// Runs before the page's own scripts: tells when messages of its WebSocket came, and when the
// charts were drawn after that. Nothing of the page is replaced; its calls are passed on.
(() => {
  const note = { messages: 0, chart: 0, chartAt: 0, bytes: 0, drawnAt: 0, drawn: 0, waiting: [] };
  window.__note = note;
  const wall = () => performance.timeOrigin + performance.now();
  note.wall = wall;

  // A frame has been seen when what was drawn in it has gone to the compositor: a message sent to
  // oneself in an animation frame comes after the frame's painting.
  const channel = new MessageChannel();
  let asked = false;
  channel.port1.onmessage = () => {
    asked = false;
    const at = wall();
    for (const done of note.waiting.splice(0)) done(at);
  };
  note.afterFrame = (done) => {
    note.waiting.push(done);
    if (!asked) {
      asked = true;
      requestAnimationFrame(() => channel.port2.postMessage(0));
    }
  };

  const clear = CanvasRenderingContext2D.prototype.clearRect;
  CanvasRenderingContext2D.prototype.clearRect = function (...args) {
    note.drawn++;
    note.drawnAt = wall();
    note.onDrawn?.(note.drawnAt);
    return clear.apply(this, args);
  };

  // The newest value of each curve of a chart's frame, as src/cupel/dashboard/frames.py packs it.
  const values = (buffer) => {
    const size = new DataView(buffer).getUint32(64, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 68, size)));
    let at = 68 + size;
    const columns = header.blocks.map(([kind, count]) => {
      const Kind = { i4: Int32Array, f4: Float32Array, f8: Float64Array }[kind];
      const column = new Kind(buffer, at, count);
      at += Math.ceil(column.byteLength / 8) * 8;
      return column;
    });
    let next = 1;
    const newest = {};
    for (const facts of header.curves) {
      const last = columns[next];
      next += 1 + (facts.band ? 2 : 0) + (facts.smooth ? 1 : 0);
      for (let row = last.length - 1; row >= 0; row--) {
        if (!Number.isNaN(last[row])) {
          newest[facts.run] = last[row];
          break;
        }
      }
    }
    return { type: header.type, newest };
  };

  window.WebSocket = class extends WebSocket {
    constructor(...args) {
      super(...args);
      this.addEventListener("message", (event) => {
        note.messages++;
        if (typeof event.data === "string") return;
        const at = wall();
        note.chart++;
        note.chartAt = at;
        note.bytes += event.data.byteLength;
        note.onChart?.(at, event.data, values);
      });
    }
    send(data) {
      if (typeof data === "string" && data.includes('"kind":"chart"')) note.askedAt = wall();
      super.send(data);
    }
  };
})();
