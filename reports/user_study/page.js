"use strict";
(() => {
  const FORMAT = "image study answers 1";
  const WORDS = { text: ["question", "rating"], mask: ["maskQuestion", "maskRating"] };
  const study = JSON.parse(document.getElementById("study").textContent);
  const items = Object.fromEntries(study.items.map((item) => [item.id, item]));
  const $ = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];

  // ---- what is kept on this device

  const place = `image-study-${study.study}`;
  let keeps = true;
  function load() {
    try {
      return JSON.parse(localStorage.getItem(place));
    } catch {
      keeps = false;
      return null;
    }
  }
  function keep() {
    try {
      localStorage.setItem(place, JSON.stringify(state));
    } catch {
      keeps = false;
    }
  }

  // ---- a participant: a random name, and an order of items and sides that follows from a random seed

  function generator(seed) {
    return () => {  // mulberry32
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), seed | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }
  function shuffled(list, random) {
    const mixed = [...list];
    for (let i = mixed.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [mixed[i], mixed[j]] = [mixed[j], mixed[i]];
    }
    return mixed;
  }
  function someone() {
    const drawn = crypto.getRandomValues(new Uint32Array(5));
    const random = generator(drawn[4]);
    const order = shuffled(study.items, random);
    const first = shuffled(order.map((_, i) => i % 2), random);  // each of the two images stands left in half of the items
    return {
      participant: [...drawn.slice(0, 4)].map((word) => word.toString(16).padStart(8, "0")).join(""),
      seed: drawn[4],
      order: order.map((item, i) => ({ item: item.id, left: item.images[first[i]], right: item.images[1 - first[i]] })),
      answers: {},
      at: 0,
      finished: false,
    };
  }

  let state = load();
  let screens = [];
  function adopt(person) {
    state = person;
    screens = state.order.flatMap((shown, number) => {
      const questions = items[shown.item].masks ? ["text", "mask"] : ["text"];
      return questions.map((question) => ({ ...shown, question, number }));
    });
  }
  if (state) adopt(state);

  // ---- answers

  const slot = (screen) => (state.answers[`${screen.item}/${screen.question}`] ??= { choice: null, ratings: [null, null], ms: 0 });
  const whole = (answer) => answer && answer.choice && answer.ratings.every(Boolean);
  const answered = (screen) => whole(state.answers[`${screen.item}/${screen.question}`]);
  function result() {
    const given = screens.map((screen, number) => ({ screen, number })).filter((entry) => answered(entry.screen));
    return JSON.stringify(
      {
        format: FORMAT, study: study.study, participant: state.participant, seed: state.seed, finished: screens.every(answered),
        answers: given.map(({ screen, number }) => {
          const { choice, ratings, ms } = slot(screen);
          return {
            place: number, item: screen.item, question: screen.question, left: screen.left, right: screen.right,
            choice, rating_left: ratings[0], rating_right: ratings[1], ms: Math.round(ms),
          };
        }),
      },
      null,
      1,
    );
  }

  // ---- time on a screen, only while it can be seen

  let since = null;
  function stopClock() {
    if (since !== null) {
      slot(screens[state.at]).ms += performance.now() - since;
      since = null;
      keep();
    }
  }
  function startClock() {
    if (!$("item").hidden && document.visibilityState === "visible") since = performance.now();
  }
  document.addEventListener("visibilitychange", () => (document.visibilityState === "visible" ? startClock() : stopClock()));
  addEventListener("pagehide", stopClock);

  // ---- screens

  function show(id) {
    for (const name of ["intro", "item", "end"]) $(name).hidden = name !== id;
    scrollTo(0, 0);
    $(id).querySelector("h1").focus({ preventScroll: true });
  }

  function intro() {
    const open = state && !state.finished;
    $("consent").replaceChildren(...study.intro.map((text) => Object.assign(document.createElement("p"), { textContent: text })));
    $("forgetful").hidden = keeps;
    $("half").hidden = $("afresh").hidden = !open;
    if (open) {
      const done = screens.filter(answered).length;
      $("half").textContent = `You were here before: ${done} of ${screens.length} questions are answered.`;
    }
    $("start").textContent = open ? "Go on where I stopped" : "I agree, start";
    show("intro");
  }

  let marked = 0;  // the image that the next digit rates
  let outlined = true;
  function item() {
    const screen = screens[state.at];
    const [question, rating] = WORDS[screen.question].map((name) => study[name]);
    outlined = true;
    marked = 0;
    $("count").textContent = `${screen.number + 1} of ${study.items.length}`;
    $("progress").max = screens.length;
    $("progress").value = state.at;
    $("question").textContent = question;
    $("prompt").textContent = `“${items[screen.item].prompt}”`;
    $("rating").textContent = rating;
    $("status").textContent = "";
    $("back").hidden = state.at === 0;
    $("next").textContent = state.at + 1 === screens.length ? "Finish" : "Next";
    all(".picture").forEach((button, side) => {
      const image = study.images[side ? screen.right : screen.left];
      const picture = button.querySelector("img");
      button.style.setProperty("--ratio", image.width / image.height);
      picture.src = image.src;
      picture.classList.toggle("pixels", Math.max(image.width, image.height) <= 256);
      const drawing = button.querySelector("svg");
      drawing.setAttribute("viewBox", image.outline ? `0 0 ${image.outline.width} ${image.outline.height}` : "0 0 1 1");
      for (const path of drawing.children) path.setAttribute("d", image.outline ? image.outline.path : "");
    });
    update();
    show("item");
    startClock();
  }

  function update() {
    const screen = screens[state.at];
    const answer = slot(screen);
    for (const button of all("[data-choice]")) button.setAttribute("aria-pressed", button.dataset.choice === answer.choice);
    all(".rating").forEach((row, side) => {
      row.classList.toggle("next", side === marked);
      row.querySelectorAll("button").forEach((button, i) => button.setAttribute("aria-pressed", answer.ratings[side] === i + 1));
    });
    const masks = screen.question === "mask";
    for (const drawing of all(".picture svg")) drawing.toggleAttribute("hidden", !masks || !outlined);
    $("outlines").hidden = $("outlinekey").hidden = !masks;
    $("outlines").textContent = outlined ? "Hide outlines" : "Show outlines";
  }

  function end() {
    const done = state.finished;
    $("end").querySelector("h1").textContent = done ? "Thank you" : "Paused";
    $("message").textContent = done
      ? "That was the last one. Your answers have not been sent: save the file and give it to whoever invited you."
      : keeps
        ? "Your answers are kept in this browser: close the page and open it again to go on. Or save what there is so far."
        : "This browser keeps nothing for this page: leave it open to go on, or save what there is so far.";
    $("answers").value = result();
    $("saved").textContent = "";
    $("return").textContent = done ? "Back to the last item" : "Go on";
    $("another").hidden = !done;
    $("another").textContent = "Start again as someone else";
    $("share").hidden = !navigator.canShare?.(handed());
    show("end");
  }

  // ---- what a participant can do

  function start() {
    if (!state || state.finished) adopt(someone());
    keep();
    item();
  }
  function afresh() {
    adopt(someone());
    start();
  }
  function sure(id) {  // deletes answers only when pressed twice
    const asked = "Delete these answers and start again?";
    if ($(id).textContent === asked) afresh();
    else $(id).textContent = asked;
  }
  function choose(choice) {
    slot(screens[state.at]).choice = choice;
    changed();
  }
  function rate(side, value) {
    slot(screens[state.at]).ratings[side] = value;
    marked = 1 - side;
    changed();
  }
  function changed() {
    $("status").textContent = "";
    keep();
    update();
  }
  function mark(side) {
    marked = side;
    update();
  }
  function toggle() {
    outlined = !outlined;
    update();
  }
  function next() {
    const answer = slot(screens[state.at]);
    const lacking = [
      answer.choice ? "" : "your choice", answer.ratings[0] ? "" : "left rating", answer.ratings[1] ? "" : "right rating",
    ].filter(Boolean);
    if (lacking.length) {
      $("status").textContent = `Still missing: ${lacking.join(", ")}.`;
      return;
    }
    stopClock();
    if (state.at + 1 < screens.length) {
      state.at += 1;
      keep();
      item();
    } else {
      state.finished = true;
      keep();
      end();
    }
  }
  function back() {
    if (state.at === 0) return;
    stopClock();
    state.at -= 1;
    keep();
    item();
  }
  function pause() {
    stopClock();
    end();
  }
  function goOn() {
    state.finished = false;
    keep();
    item();
  }

  const file = (ending, type) => new File([result()], `answers-${state.participant.slice(0, 8)}.${ending}`, { type });
  const handed = () => ({ files: [file("txt", "text/plain")] });  // phones pass text on, but no JSON
  function save() {
    const made = file("json", "application/json");
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(made), download: made.name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    $("saved").textContent = `Saved as ${made.name}, where this browser puts downloads. If no file is there, use Copy and send the text.`;
  }
  async function share() {
    try {
      await navigator.share(handed());
      $("saved").textContent = "Handed over.";
    } catch {
      $("saved").textContent = "Not sent. Save the file instead, or copy the text.";
    }
  }
  async function copy() {
    let copied = true;
    try {
      await navigator.clipboard.writeText(result());
    } catch {
      $("shown").open = true;
      $("answers").select();
      copied = document.execCommand("copy");
    }
    $("saved").textContent = copied ? "Copied: paste it into a message." : "This browser does not let the page copy: select the text below and copy it.";
  }

  // ---- hands and keys

  const words = ["not at all", "", "", "", "perfectly"];
  all(".rating").forEach((row, side) => {
    for (let value = 1; value <= 5; value++) {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: value });
      if (words[value - 1]) button.setAttribute("aria-label", `${value}, ${words[value - 1]}`);
      button.addEventListener("click", () => rate(side, value));
      row.append(button);
    }
  });
  for (const button of all("[data-choice]")) button.addEventListener("click", () => choose(button.dataset.choice));
  const actions = { start, next, back, pause, save, share, copy, outlines: toggle, return: goOn, another: () => sure("another"), afresh: () => sure("afresh") };
  for (const [id, action] of Object.entries(actions)) $(id).addEventListener("click", action);
  // A button that was touched must not catch the space and enter that come next: only one that was reached by keyboard does.
  document.addEventListener("click", (event) => {
    if (event.detail > 0 && !$("item").hidden && event.target.closest("button")) $("question").focus({ preventScroll: true });
  });

  function onItem(key) {
    if (key >= "1" && key <= "5" && key.length === 1) return () => rate(marked, Number(key));
    const left = { ArrowLeft: "left", ArrowRight: "right", " ": "none" }[key];
    if (left) return () => choose(left);
    if (key === "o" && screens[state.at].question === "mask") return toggle;
    return { ArrowUp: () => mark(0), ArrowDown: () => mark(1), Enter: next, Backspace: back }[key];
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    const focused = document.activeElement;
    if (focused.matches("textarea") || (focused.matches("button, summary") && (event.key === "Enter" || event.key === " "))) return;
    const action = !$("item").hidden
      ? onItem(event.key)
      : !$("intro").hidden
        ? { Enter: start }[event.key]
        : { Enter: state.finished ? save : goOn, Backspace: goOn }[event.key];
    if (action) {
      event.preventDefault();
      action();
    }
  });

  if (state?.finished) end();
  else intro();
})();
