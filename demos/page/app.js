// Keys held down, by keyboard or on the pad, ask for one frame after another.
(() => {
  const ALIASES = { KeyW: "ArrowUp", KeyS: "ArrowDown", KeyA: "ArrowLeft", KeyD: "ArrowRight" };
  const FASTEST = 50; // milliseconds between two frames while a key is held
  const PLAY_LIMIT = 60_000; // milliseconds without a key after which playing stops
  const PAUSE = 500; // a longer gap between two frames is a pause of the driver

  let element, call, visitor;
  let dials = {};
  let waiting = false, playing = false, going = false, timer = null;
  let asked = -Infinity, pressed = null, lastKey = 0;
  const held = new Map(); // key -> how many fingers and keys hold it
  const tapped = new Set(); // pressed since the last frame, perhaps released already
  const commands = []; // undo, reset, start: before the next frame
  let shown = []; // moments at which frames were shown

  const find = (selector) => element.querySelector(selector);
  const button = (key) => find(`[data-key="${CSS.escape(key)}"]`);
  const shownGroup = () => find("[data-group]:not([hidden])");
  const visible = () => element && element.offsetParent !== null;

  const complain = (text) => {
    find("#message").textContent = text;
    if (text) [...held.keys()].forEach((key) => release(key, true));
    if (text) play(false);
    if (text) go(false);
  };

  const draw = async (reply) => {
    const images = [];
    for (const group of element.querySelectorAll(".kind")) {
      const sources = reply.panels[group.dataset.kind];
      group.hidden = !sources;
      group.querySelectorAll("img").forEach((image, index) => {
        if (!sources) return image.removeAttribute("src");
        image.src = sources[index];
        images.push(image.decode().catch(() => {}));
      });
    }
    find(".screens").classList.toggle("beside", "truth" in reply.panels);
    await Promise.all(images);
    find("#count").textContent = reply.step;
    find("#count").dataset.kept = ""; // the server holds a session of this page
  };

  const offer = (files) => {
    const links = Object.entries(files).map(([name, address]) => {
      const link = Object.assign(document.createElement("a"), { href: address, download: name });
      link.textContent = name;
      return link;
    });
    find("#files").replaceChildren("Download ", ...links);
  };

  const measure = (now, begun) => {
    if (shown.length && now - shown.at(-1) > PAUSE) shown = [];
    shown = [...shown.slice(-23), now];
    const rate = (1000 * (shown.length - 1)) / (now - shown[0]);
    find("#rate").textContent = shown.length > 1 ? `${rate.toFixed(0)} frames/s` : "";
    find("#latency").textContent = `${(now - begun).toFixed(0)} ms from key to picture`;
  };

  // The frame that the planner drives to.
  const showGoal = (sources) => {
    const pictures = sources.map((src) => Object.assign(new Image(), { src, alt: "the goal" }));
    find("#goal .pictures").replaceChildren(...pictures);
    find("#goal").hidden = false;
  };
  const go = (on) => {
    going = on;
    find('[data-do="go"]')?.setAttribute("aria-pressed", on);
    if (on) play(false);
    run();
  };

  const next = () => {
    if (commands.length) return commands.shift();
    if (going && visible()) return { do: "go" };
    const keys = [...new Set([...held.keys(), ...tapped])];
    if (!keys.length && !(playing && visible())) return null;
    const rest = keys.length ? FASTEST : 1000 / Number(find(".drive").dataset.fps);
    const wait = asked + rest - performance.now();
    if (wait > 0) {
      clearTimeout(timer);
      timer = setTimeout(run, wait);
      return null;
    }
    tapped.clear();
    return { do: "step", keys };
  };

  const dismiss = () => find(".hint")?.remove(); // who steers needs no hint

  const busy = (yes) => {
    waiting = yes;
    find(".screens").setAttribute("aria-busy", yes);
  };

  const run = async () => {
    if (waiting || visitor === undefined) return;
    if (playing && performance.now() - lastKey > PLAY_LIMIT) play(false);
    const command = next();
    if (!command) return;
    busy(true);
    asked = performance.now();
    const begun = pressed ?? asked;
    pressed = null;
    try {
      const reply = await call(JSON.stringify({ visitor, ...dials, ...command }));
      complain(reply.error ?? "");
      if (reply.files) offer(reply.files);
      if (reply.goal) showGoal(reply.goal);
      if (reply.nearness) find("#nearness").textContent = reply.nearness;
      if (reply.going === false) go(false);
      if (reply.panels) await draw(reply);
      if (reply.panels && command.do === "step") measure(performance.now(), begun);
    } catch (error) {
      complain(`the server does not answer: ${error.message ?? error}`);
    }
    busy(false);
    run();
  };

  const order = (command) => {
    commands.push(command);
    run();
  };
  const play = (on) => {
    playing = on;
    if (on && going) go(false);
    if (on) dismiss();
    lastKey = performance.now();
    find('[data-do="play"]').textContent = on ? "Pause" : "Play";
    find('[data-do="play"]').setAttribute("aria-pressed", on);
    run();
  };
  const press = (key) => {
    held.set(key, (held.get(key) ?? 0) + 1);
    tapped.add(key);
    if (going) go(false);
    dismiss();
    pressed ??= lastKey = performance.now();
    button(key).classList.add("held");
    run();
  };
  const release = (key, whole = false) => {
    if (!held.has(key)) return;
    held.set(key, whole ? 0 : held.get(key) - 1);
    if (held.get(key) > 0) return;
    held.delete(key);
    button(key).classList.remove("held");
  };
  const releaseAll = () => [...held.keys()].forEach((key) => release(key, true));

  // The keys drive one group of action dims at a time.
  const choose = (number) => {
    const group = find(`[data-group="${number}"]`);
    if (!group || group === shownGroup()) return;
    releaseAll();
    element.querySelectorAll("[data-group]").forEach((each) => { each.hidden = each !== group; });
    element.querySelectorAll("[data-choose]").forEach((each) => {
      each.setAttribute("aria-pressed", each.dataset.choose === String(number));
    });
  };

  // What the visitor's layout has in the place of a key: from the browser, or from the first press.
  const label = (code, text) => {
    if (!/^Key/.test(code) || [...text].length !== 1 || !text.trim()) return;
    for (const place of element.querySelectorAll(`[data-code="${CSS.escape(code)}"]`)) {
      place.textContent = text.toUpperCase();
      if (place.title) place.setAttribute("aria-label", `${place.title}, key ${text}`);
    }
  };
  const readLayout = async () => {
    const layout = await navigator.keyboard?.getLayoutMap?.().catch(() => null);
    layout?.forEach((text, code) => label(code, text));
  };

  // Keyboard, by the places of keys: arrows, WASD and letters; Space or Enter on a button.
  const keyOf = (event) => {
    const target = event.target;
    const typing = target.matches?.("textarea, select, input:not([type=range], [type=checkbox], [type=radio])");
    const slider = target.matches?.("input[type=range], input[type=radio], [role=tab], [role=radio]");
    const plain = !(event.ctrlKey || event.metaKey || event.altKey);
    if (!visible() || !plain || typing || (slider && event.code.startsWith("Arrow"))) return null;
    const focused = target.closest?.("[data-key]")?.dataset.key;
    if (focused && ["Space", "Enter", "NumpadEnter"].includes(event.code)) return focused;
    const digit = /^Digit([1-9])$/.exec(event.code);
    if (digit) choose(digit[1] - 1);
    if (!event.isComposing) label(event.code, event.key);
    const code = ALIASES[event.code] ?? event.code;
    return shownGroup().querySelector(`[data-key][data-code="${CSS.escape(code)}"]`)?.dataset.key ?? null;
  };
  const downs = new Map(); // event.code -> key, so that a release finds what was pressed
  window.addEventListener("keydown", (event) => {
    const key = keyOf(event);
    if (!key) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.repeat || downs.has(event.code)) return;
    downs.set(event.code, key);
    press(key);
  }, true);
  window.addEventListener("keyup", (event) => {
    if (!downs.has(event.code)) return;
    release(downs.get(event.code));
    downs.delete(event.code);
  }, true);

  // Mouse and fingers: each pointer holds the button that it went down on.
  const pointers = new Map();
  window.addEventListener("pointerdown", (event) => {
    const key = event.target.closest?.("#drive [data-key]")?.dataset.key;
    if (!key) return;
    pointers.set(event.pointerId, key);
    press(key);
  });
  const lift = (event) => {
    if (!pointers.has(event.pointerId)) return;
    release(pointers.get(event.pointerId));
    pointers.delete(event.pointerId);
  };
  window.addEventListener("pointerup", lift);
  window.addEventListener("pointercancel", lift);
  window.addEventListener("focus", () => element && readLayout()); // the layout may have been switched
  window.addEventListener("blur", () => {
    releaseAll();
    downs.clear();
    pointers.clear();
  });

  window.addEventListener("click", (event) => {
    const start = event.target.closest?.("#drive [data-start]");
    const act = event.target.closest?.("#drive [data-do]")?.dataset.do;
    const group = event.target.closest?.("#drive [data-choose]")?.dataset.choose;
    if (group) choose(group);
    else if (act === "go") go(!going);
    else if (act === "play") play(!playing);
    else if (start || act) {
      go(false);
      order(start ? { do: "start", index: Number(start.dataset.start) } : { do: act });
    }
  });

  window.driving = {
    connect(where, server) {
      [element, call] = [where, server];
      element.addEventListener("contextmenu", (event) => {
        if (event.target.closest(".key")) event.preventDefault(); // a long touch is a held key
      });
      readLayout();
      if (visitor !== undefined) order({ do: "start", index: 0 });
    },
    begin(who, ...values) {
      window.driving.turn(...values);
      visitor = who;
      if (element) order({ do: "start", index: 0 });
    },
    turn(num_steps, speed, seed, beside) {
      const was = dials.beside;
      dials = { num_steps, speed, seed: seed ?? 0, beside };
      if (visitor !== undefined && was !== beside) order({ do: "again" });
    },
  };
})();
