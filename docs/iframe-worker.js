/* Search for pages opened from a folder. Browsers start no Worker there, so this one is a frame. */
"use strict";
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "Search";
      // Inside, postMessage means "to the page", as it does in a worker.
      const inside = "self.postMessage = data => parent.postMessage(data, '*');";
      frame.srcdoc = `<script>${inside}</script><script src="${new URL(url, location)}"></script>`;
      this.frame = frame;
      this.loaded = new Promise((done) => frame.addEventListener("load", done));
      addEventListener("message", (event) => {
        if (event.source === frame.contentWindow)
          this.dispatchEvent(new MessageEvent("message", { data: event.data }));
      });
      document.body.append(frame);
    }

    postMessage(data) {
      this.loaded.then(() => window.postMessage.call(this.frame.contentWindow, data, "*"));
    }

    terminate() {
      this.frame.remove();
    }
  };
  window.Worker = window.IFrameWorker;
}
