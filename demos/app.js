// Keys held down, by keyboard or on the pad, ask for one frame after another.
(() => {
  const arrows = { ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right" };
  const held = new Set();
  const tapped = new Set(); // pressed since the last frame, perhaps released already
  let waiting = false;

  const button = (key) => document.querySelector(`#pad [data-key="${CSS.escape(key)}"]`);
  const ask = () => {
    if (waiting || held.size + tapped.size === 0) return;
    waiting = true;
    document.querySelector("#advance").click();
  };
  const press = (key) => {
    held.add(key);
    tapped.add(key);
    button(key).classList.add("held");
    ask();
  };
  const release = (key) => {
    held.delete(key);
    button(key)?.classList.remove("held");
  };
  const releaseAll = () => [...held].forEach(release);

  window.driving = {
    keys() {
      const keys = [...new Set([...held, ...tapped])].join(" ");
      tapped.clear();
      return keys;
    },
    arrived() {
      waiting = false;
      ask();
    },
  };

  const keyOf = (event) => {
    const typing = event.target.matches?.("textarea, input:not([type=range])");
    const key = arrows[event.key] ?? event.key.toLowerCase();
    const plain = !(event.ctrlKey || event.metaKey || event.altKey);
    return plain && !typing && button(key) ? key : null;
  };
  window.addEventListener("keydown", (event) => {
    const key = keyOf(event);
    if (!key) return;
    event.preventDefault();
    event.stopPropagation();
    if (!event.repeat) press(key);
  }, true);
  window.addEventListener("keyup", (event) => {
    release(arrows[event.key] ?? event.key.toLowerCase());
  }, true);
  window.addEventListener("pointerdown", (event) => {
    const key = event.target.closest?.("#pad [data-key]")?.dataset.key;
    if (key) press(key);
  });
  window.addEventListener("pointerup", releaseAll);
  window.addEventListener("pointercancel", releaseAll);
  window.addEventListener("blur", releaseAll);
})();
