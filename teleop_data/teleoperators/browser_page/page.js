// The page of BrowserTeleoperator: shows what the robot's cameras see, sends where the hand shall be.
//
// The server's word wins: it numbers every target that it sets itself (epoch), and until this page has
// seen that number, what it sends is ignored.
"use strict";

const SEND_EVERY_MS = 33;
const SECONDS_ACROSS = 2.5; // keys and sticks cross the reach in so many seconds
const SLOWLY = 0.25; // with Shift
const DEAD_ZONE = 0.15; // of a gamepad's stick
const WHEEL_SHARE = 0.0002; // of the height's range for a pixel of the wheel

const $ = (id) => document.getElementById(id);
const pressed = new Set();
let reach = null; // low, high, right, up, unit; null without a pad
let words = {};
let target = null;
let epoch = -1;
let isDragging = false;
let awaited = []; // cameras whose pictures come next
let numUndrawn = 0; // pictures of this update
let buttonsBefore = [];
let tickedAt = performance.now();

const socket = new WebSocket(`ws://${location.host}/socket${location.search}`);
socket.binaryType = "blob";
socket.onmessage = (event) => {
  if (event.data instanceof Blob) return void drawPicture(awaited.shift(), event.data);
  const message = JSON.parse(event.data);
  if (message.kind === "greeting") greet(message);
  else update(message);
};
socket.onclose = () => {
  target = null;
  setText("state", "disconnected");
  warn("The program has ended, or this page was refused. The hand is held still.");
};

function send(kind, more = {}) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ kind, ...more }));
}

function greet(message) {
  reach = message.reach;
  document.title = message.title;
  setText("title", message.title);
  for (const id of ["reach", "numbers", "move-help"]) $(id).hidden = !reach;
  for (const [id, name] of [["height", "z"], ["yaw", "yaw"], ["gripper", "closure"]]) {
    const has = reach && reach.low[name] !== reach.high[name];
    for (const suffix of ["", "-row", "-help"]) if ($(id + suffix)) $(id + suffix).hidden = !has;
  }
  if (reach) [$("height").min, $("height").max] = [reach.low.z, reach.high.z];
  $("cameras").replaceChildren(...message.cameras.map(figureOf));
  $("labels").replaceChildren(...message.labels.map((label) => buttonOf(label)));
}

function figureOf({ name, height, width }) {
  const figure = document.createElement("figure");
  const canvas = Object.assign(document.createElement("canvas"), { id: `camera-${name}`, height, width });
  const caption = Object.assign(document.createElement("figcaption"), { textContent: name });
  figure.append(canvas, caption);
  return figure;
}

function buttonOf(label) {
  const button = Object.assign(document.createElement("button"), { textContent: label });
  button.onclick = () => send("label", { text: label });
  return button;
}

async function drawPicture(name, blob) {
  const picture = await createImageBitmap(blob);
  $(`camera-${name}`).getContext("2d").drawImage(picture, 0, 0);
  picture.close();
  if (--numUndrawn === 0) send("seen");
}

function update(message) {
  words = message;
  awaited = [...message.pictures];
  numUndrawn = awaited.length;
  if (!message.target) target = null; // nothing is driven now
  else if (message.epoch !== epoch) {
    epoch = message.epoch;
    target = { ...message.target };
  }
  setText("state", message.state);
  $("state").className = message.phase;
  setText("progress", message.progress);
  setText("kept", message.kept);
  warn([message.watching, message.trouble].filter(Boolean).join(" "));
  $("drive").hidden = message.is_driver || message.is_taken;
  for (const id of ["start", "keep", "drop", "stop"]) {
    $(id).disabled = !message.is_driver || !message.offers.includes(id);
  }
  for (const button of $("labels").children) {
    button.disabled = !message.is_driver || !message.offers.includes("label");
  }
  if (numUndrawn === 0) send("seen");
  draw();
}

function setText(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function warn(text) {
  $("warning").hidden = !text;
  setText("warning", text || "");
}

// The pad: the target is a ring, the hand a dot.

const entryOf = (direction) => direction.at(-1);

function share(direction, value) {
  const name = entryOf(direction);
  const part = (value - reach.low[name]) / (reach.high[name] - reach.low[name]);
  return direction[0] === "-" ? 1 - part : part;
}

function valueAt(direction, part) {
  const name = entryOf(direction);
  const along = direction[0] === "-" ? 1 - part : part;
  return reach.low[name] + along * (reach.high[name] - reach.low[name]);
}

function padSize() { // pixels inside the pad, in the reach's own proportion
  const span = (d) => reach.high[entryOf(d)] - reach.low[entryOf(d)];
  const [across, along] = [span(reach.right), span(reach.up)];
  const scale = 380 / Math.max(across, along);
  return { width: across * scale, height: along * scale };
}

function padPoint(where) {
  const { width, height } = padSize();
  const x = 200 + (share(reach.right, where[entryOf(reach.right)]) - 0.5) * width;
  const y = 200 - (share(reach.up, where[entryOf(reach.up)]) - 0.5) * height;
  return [x, y];
}

function draw() {
  if (!reach) return;
  const context = $("pad").getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const [accent, line] = [style.getPropertyValue("--accent"), style.getPropertyValue("--line")];
  const { width, height } = padSize();
  context.clearRect(0, 0, 400, 400);
  context.lineWidth = 1;
  context.strokeStyle = line;
  for (let i = 0; i <= 4; i++) {
    const [x, y] = [200 + (i / 4 - 0.5) * width, 200 + (i / 4 - 0.5) * height];
    context.strokeRect(x, 200 - height / 2, 0, height);
    context.strokeRect(200 - width / 2, y, width, 0);
  }
  if (words.hand) dot(context, padPoint(words.hand));
  if (target) {
    const [x, y] = padPoint(target);
    context.strokeStyle = accent;
    context.lineWidth = target.closure > 0.5 ? 6 : 3;
    context.beginPath();
    context.arc(x, y, 14, 0, 2 * Math.PI);
    context.stroke();
    if (reach.low.yaw !== reach.high.yaw) { // the line in which the fingers open: y at yaw 0
      const opens = { x: -Math.sin(target.yaw), y: Math.cos(target.yaw) };
      const along = (d) => 22 * opens[entryOf(d)] * (d[0] === "-" ? -1 : 1);
      const [dx, dy] = [along(reach.right), -along(reach.up)];
      context.beginPath();
      context.moveTo(x - dx, y - dy);
      context.lineTo(x + dx, y + dy);
      context.stroke();
    }
    $("height").value = target.z;
    setText("gripper", target.closure > 0.5 ? "Open gripper" : "Close gripper");
    setText("numbers", numbers());
  }
}

function dot(context, [x, y]) {
  context.fillStyle = getComputedStyle(document.body).color;
  context.beginPath();
  context.arc(x, y, 6, 0, 2 * Math.PI);
  context.fill();
}

function numbers() {
  const digits = reach.unit === "m" ? 3 : 1;
  const names = reach.low.z === reach.high.z ? ["x", "y"] : ["x", "y", "z"];
  const place = names.map((name) => `${name} ${target[name].toFixed(digits)}`).join("  ");
  const turn = reach.low.yaw === reach.high.yaw ? "" : `, turned ${target.yaw.toFixed(2)} rad`;
  return `target ${place} ${reach.unit}${turn}`;
}

// What a person does.

function clip(name, value) {
  return Math.min(Math.max(value, reach.low[name]), reach.high[name]);
}

const move = (name, by) => { target[name] = clip(name, target[name] + by); };

function toggleGripper() {
  if (target && reach.low.closure !== reach.high.closure) {
    target.closure = target.closure > 0.5 ? reach.low.closure : reach.high.closure;
  }
}

function pointAt(event) {
  if (!target || !words.is_driver) return;
  const box = $("pad").getBoundingClientRect();
  const { width, height } = padSize();
  const right = (event.clientX - box.left - $("pad").clientLeft - 200) / width + 0.5;
  const up = (200 - (event.clientY - box.top - $("pad").clientTop)) / height + 0.5;
  for (const [direction, part] of [[reach.right, right], [reach.up, up]]) {
    target[entryOf(direction)] = clip(entryOf(direction), valueAt(direction, part));
  }
}

$("pad").addEventListener("pointerdown", (event) => {
  isDragging = true;
  $("pad").setPointerCapture(event.pointerId);
  pointAt(event);
});
$("pad").addEventListener("pointermove", (event) => isDragging && pointAt(event));
for (const kind of ["pointerup", "pointercancel"]) {
  $("pad").addEventListener(kind, () => { isDragging = false; });
}
$("pad").addEventListener("wheel", (event) => {
  event.preventDefault();
  if (target) move("z", -event.deltaY * WHEEL_SHARE * (reach.high.z - reach.low.z));
}, { passive: false });
$("height").addEventListener("input", () => { if (target) target.z = clip("z", Number($("height").value)); });
$("gripper").addEventListener("click", toggleGripper);
for (const id of ["start", "keep", "drop", "stop", "drive"]) {
  $(id).addEventListener("click", () => send(id === "drive" ? "take" : id));
}

const KEYS = new Set(["arrowleft", "arrowright", "arrowup", "arrowdown", "r", "f", "q", "e"]);
const COMMANDS = {
  " ": toggleGripper,
  enter: () => ($("start").disabled ? $("keep") : $("start")).click(),
  backspace: () => $("drop").click(),
};
addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (key === "shift") pressed.add(key);
  if (!KEYS.has(key) && !(key in COMMANDS)) return;
  event.preventDefault(); // or the space bar would press the button that has the focus as well
  if (KEYS.has(key)) pressed.add(key);
  else if (!event.repeat) COMMANDS[key]();
});
addEventListener("keyup", (event) => pressed.delete(event.key.toLowerCase()));
addEventListener("blur", () => pressed.clear()); // a key let go elsewhere is never heard of

function axis(minus, plus) {
  return (pressed.has(plus) ? 1 : 0) - (pressed.has(minus) ? 1 : 0);
}

function stick(pad, number) {
  const value = pad?.axes[number] ?? 0;
  return Math.abs(value) < DEAD_ZONE ? 0 : value;
}

function readGamepad() { // the standard mapping: A gripper, B drop, Start start and keep
  const pad = navigator.getGamepads().find((each) => each?.mapping === "standard");
  setText("gamepad", pad ? "Gamepad: left stick moves, right stick raises and turns; "
    + "A gripper, B drop, Start starts and keeps." : "");
  const buttons = pad ? pad.buttons.map((button) => button.pressed) : [];
  for (const [number, key] of [[0, " "], [1, "backspace"], [9, "enter"]]) {
    if (buttons[number] && !buttonsBefore[number]) COMMANDS[key]();
  }
  buttonsBefore = buttons;
  return pad;
}

function tick() {
  const now = performance.now();
  const elapsed = Math.min(now - tickedAt, 100) / 1000;
  tickedAt = now;
  if (!words.is_driver) return;
  const pad = readGamepad();
  if (!target) return send("alive");
  const pace = elapsed * (pressed.has("shift") ? SLOWLY : 1) / SECONDS_ACROSS;
  const wishes = [
    [reach.right, axis("arrowleft", "arrowright") + stick(pad, 0)],
    [reach.up, axis("arrowdown", "arrowup") - stick(pad, 1)],
    ["z", axis("f", "r") - stick(pad, 3)],
    ["yaw", axis("e", "q") - stick(pad, 2)],
  ];
  for (const [direction, wish] of wishes) {
    const name = direction === "yaw" ? "yaw" : entryOf(direction);
    const sign = direction[0] === "-" ? -1 : 1;
    if (wish !== 0) move(name, sign * wish * pace * (reach.high[name] - reach.low[name]));
  }
  send("drive", { epoch, target });
  draw();
}
setInterval(tick, SEND_EVERY_MS);
