"use strict";
// Turns the car by drag, keys and slider. Without this script the page shows the first view.
const car = document.querySelector(".car");
const views = [...car.querySelectorAll("img")];
const controls = document.querySelector(".controls");
const slider = controls.querySelector("input");
const number = controls.querySelector(".number");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const SLOWED_MS = 300; // in which a coasting car loses two thirds of its speed
const SLOWEST = 2; // views a second: a slower car stops
let place = 0; // of the car in views; a fraction while it is dragged or coasts
let speed = 0; // views a second
let drag = null;

function show(next) {
  place = ((next % views.length) + views.length) % views.length;
  const view = Math.round(place) % views.length;
  views.forEach((image, index) => image.classList.toggle("shown", index === view));
  slider.value = view + 1;
  slider.setAttribute("aria-valuetext", `View ${view + 1} of ${views.length}`);
  number.textContent = `${view + 1} / ${views.length}`;
}

function turnTo(next) {
  speed = 0;
  show(Math.round(next));
}

function coast(since) {
  requestAnimationFrame((now) => {
    if (!speed) return;
    const seconds = Math.min(now - since, 100) / 1000;
    show(place + speed * seconds);
    speed *= Math.exp(-seconds * 1000 / SLOWED_MS);
    if (Math.abs(speed) < SLOWEST) turnTo(place);
    else coast(now);
  });
}

car.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button) return;
  speed = 0;
  drag = { x: event.clientX, place, moves: [event] };
  car.setPointerCapture(event.pointerId);
  car.classList.add("held");
});
// A drag over the width of the image turns the car once. Its near side follows the pointer where
// views are numbered as in Kaggle's data.
car.addEventListener("pointermove", (event) => {
  if (!drag || !event.isPrimary) return;
  show(drag.place - (event.clientX - drag.x) / car.clientWidth * views.length);
  drag.moves = [...drag.moves.filter((move) => event.timeStamp - move.timeStamp < 100), event];
});
function release(event) {
  if (!drag || !event.isPrimary) return;
  const first = drag.moves[0];
  const seconds = (event.timeStamp - first.timeStamp) / 1000;
  const turned = (first.clientX - event.clientX) / car.clientWidth * views.length;
  drag = null;
  car.classList.remove("held");
  turnTo(place);
  if (event.type === "pointerup" && seconds > 0 && !calm.matches) {
    speed = turned / seconds;
    coast(performance.now());
  }
}
car.addEventListener("pointerup", release);
car.addEventListener("pointercancel", release); // the browser scrolls the page instead
slider.addEventListener("input", () => turnTo(slider.value - 1));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
  const view = Math.round(place);
  const next = {
    ArrowLeft: view - 1, ArrowRight: view + 1, Home: 0, End: views.length - 1,
  }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  turnTo(next);
});
controls.hidden = false;
show(0);
for (const image of views) image.decode().catch(() => {}); // ahead, so that no view flickers
