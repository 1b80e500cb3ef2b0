// Draws recorded episodes: every element of class "viewer" holds its data as JSON, and becomes an
// interactive picture. Lengths are metres, times seconds, z points upwards, quaternions are w x y z.
"use strict";
(() => {
  const FIELD_OF_VIEW = (38 * Math.PI) / 180; // vertical
  const LIGHT = normalise([0.42, -0.5, 0.9]); // towards the light
  const ENDLESS = 2.5; // planes that extend so many times the reach have no edge
  const HORIZON = 14; // times the reach: where the ground fades into the sky
  const DARK = matchMedia("(prefers-color-scheme: dark)");
  const PAUSE = 1; // seconds between the end and the next beginning
  const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];
  const HINT =
    "Drag to turn, wheel or pinch to zoom, right drag or two fingers to move, double click to " +
    "reset. Space plays, left and right step, up and down change the speed, " +
    "F follows or stays.";

  const VERTEX = `#version 300 es
    in vec3 position;
    in vec3 normal;
    uniform mat4 camera;
    uniform vec3 origin;
    uniform vec4 turn;
    uniform vec4 stretch;   // of planes: half sides, and where the middle lies on the plane
    uniform vec4 shadow;    // the plane that shadows fall on: normal and offset; no shadow: 0
    uniform vec3 light;
    out vec3 world;
    out vec3 facing;
    out vec2 onPlane;
    vec3 turned(vec3 v) {
      return v + 2.0 * cross(turn.yzw, cross(turn.yzw, v) + turn.x * v);
    }
    void main() {
      vec3 local = vec3(position.xy * stretch.xy + stretch.zw, position.z);
      onPlane = local.xy;
      world = turned(local) + origin;
      facing = turned(normal);
      if (shadow.xyz != vec3(0.0)) {
        world -= light * (dot(world, shadow.xyz) - shadow.w) / dot(light, shadow.xyz);
      }
      gl_Position = camera * vec4(world, 1.0);
    }`;

  const FRAGMENT = `#version 300 es
    precision highp float;
    in vec3 world;
    in vec3 facing;
    in vec2 onPlane;
    uniform int kind;       // 0 solid, 1 ground, 2 shadow
    uniform vec4 colour;
    uniform vec3 tile;      // the ground's other colour
    uniform float side;     // of a tile
    uniform vec3 sky;
    uniform vec3 eye;
    uniform vec3 focus;
    uniform vec2 fade;      // distances from the focus at which the ground begins and ends to fade
    uniform vec3 light;
    out vec4 pixel;

    // Which colour a tile has, from 0 to 1, blurred over a pixel.
    float tiles(vec2 p) {
      vec2 wave = abs(fract(p * 0.5 + 0.25) - 0.5) * 2.0 - 0.5;
      vec2 width = max(fwidth(p), vec2(1e-5));
      vec2 edge = clamp(wave / width, -0.5, 0.5) * 2.0;
      float sharp = 1.0 - smoothstep(0.35, 0.9, max(width.x, width.y));
      return 0.5 + 0.5 * edge.x * edge.y * sharp;
    }

    void main() {
      float far = smoothstep(fade.x, fade.y, distance(world, focus));
      if (kind == 2) {
        pixel = vec4(colour.rgb, colour.a * (1.0 - far));
      } else if (kind == 1) {
        pixel = vec4(mix(mix(colour.rgb, tile, tiles(onPlane / side)), sky, far), 1.0);
      } else {
        vec3 view = normalize(eye - world);
        vec3 n = normalize(facing);
        n = dot(n, view) < 0.0 ? -n : n;
        float lit = max(dot(n, light), 0.0);
        float dome = 0.5 + 0.5 * n.z;
        float shine = pow(max(dot(n, normalize(light + view)), 0.0), 40.0);
        float rim = pow(1.0 - max(dot(n, view), 0.0), 3.0);
        vec3 bright = colour.rgb * (0.38 + 0.26 * dome + 0.58 * lit + 0.08 * dot(n, view));
        pixel = vec4(bright + 0.16 * shine + 0.10 * rim, colour.a);
      }
    }`;

  // Vectors and matrices (column by column, as WebGL takes them).

  function add(a, b) { return [a[0] + b[0], a[1] + b[1], a[2] + b[2]]; }
  function scale(a, s) { return [a[0] * s, a[1] * s, a[2] * s]; }
  function dot(a, b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
  function normalise(a) { return scale(a, 1 / (Math.hypot(...a) || 1)); }
  function cross(a, b) {
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  }
  function rotate(q, v) {
    const axis = [q[1], q[2], q[3]];
    return add(v, scale(cross(axis, add(cross(axis, v), scale(v, q[0]))), 2));
  }
  function clamp(x, low, high) { return Math.min(high, Math.max(low, x)); }

  function multiply(a, b) {
    const product = new Float32Array(16);
    for (let column = 0; column < 4; column++) {
      for (let row = 0; row < 4; row++) {
        for (let k = 0; k < 4; k++) product[column * 4 + row] += a[k * 4 + row] * b[column * 4 + k];
      }
    }
    return product;
  }

  function perspective(aspect, near, far) {
    const f = 1 / Math.tan(FIELD_OF_VIEW / 2);
    const depth = near - far;
    return [
      f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) / depth, -1, 0, 0, (2 * far * near) / depth, 0,
    ];
  }

  function looking(eye, { right, up, back }) {
    return [
      right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2], 0,
      -dot(right, eye), -dot(up, eye), -dot(back, eye), 1,
    ];
  }

  // Solids: triangles as [x, y, z, nx, ny, nz] per vertex.

  // The solid that a profile describes when it turns about z; rows are [r, z, normal r, normal z].
  function lathe(profile, slices = 40) {
    const vertices = [];
    const vertex = ([r, z, nr, nz], slice) => {
      const angle = (2 * Math.PI * slice) / slices;
      const [c, s] = [Math.cos(angle), Math.sin(angle)];
      vertices.push(r * c, r * s, z, nr * c, nr * s, nz);
    };
    for (let row = 0; row + 1 < profile.length; row++) {
      for (let slice = 0; slice < slices; slice++) {
        for (const [r, s] of [[0, 0], [0, 1], [1, 1], [0, 0], [1, 1], [1, 0]]) {
          vertex(profile[row + r], slice + s);
        }
      }
    }
    return vertices;
  }

  function ball(radius, half) {
    const profile = [];
    const arc = 12;
    for (const [offset, first] of [[-half, -Math.PI / 2], [half, 0]]) {
      for (let i = 0; i <= arc; i++) {
        const angle = first + ((Math.PI / 2) * i) / arc;
        const [c, s] = [Math.cos(angle), Math.sin(angle)];
        profile.push([radius * c, offset + radius * s, c, s]);
      }
    }
    return lathe(profile);
  }

  function cylinder(radius, half) {
    return lathe([
      [0, -half, 0, -1], [radius, -half, 0, -1], [radius, -half, 1, 0],
      [radius, half, 1, 0], [radius, half, 0, 1], [0, half, 0, 1],
    ]);
  }

  function ellipsoid(size) {
    const vertices = ball(1, 0);
    for (let i = 0; i < vertices.length; i += 6) {
      const normal = normalise([0, 1, 2].map((axis) => vertices[i + 3 + axis] / size[axis]));
      for (let axis = 0; axis < 3; axis++) {
        vertices[i + axis] *= size[axis];
        vertices[i + 3 + axis] = normal[axis];
      }
    }
    return vertices;
  }

  function box(size) {
    const vertices = [];
    for (let axis = 0; axis < 3; axis++) {
      for (const sign of [-1, 1]) {
        for (const [u, v] of [[-1, -1], [1, -1], [1, 1], [-1, -1], [1, 1], [-1, 1]]) {
          const at = [0, 0, 0];
          const normal = [0, 0, 0];
          at[axis] = normal[axis] = sign;
          at[(axis + 1) % 3] = u;
          at[(axis + 2) % 3] = v;
          vertices.push(...at.map((x, i) => x * size[i]), ...normal);
        }
      }
    }
    return vertices;
  }

  function square() {
    const corners = [[-1, -1], [1, -1], [1, 1], [-1, -1], [1, 1], [-1, 1]];
    return corners.flatMap(([x, y]) => [x, y, 0, 0, 0, 1]);
  }

  function solid({ shape, size }) {
    switch (shape) {
      case "plane": return square();
      case "sphere": return ball(size[0], 0);
      case "capsule": return ball(size[0], size[1]);
      case "cylinder": return cylinder(size[0], size[1]);
      case "ellipsoid": return ellipsoid(size);
      case "box": return box(size);
    }
    throw new Error(`unknown shape ${shape}`);
  }

  // Episodes.

  function decode(text, Type) {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    return new Type(bytes.buffer);
  }

  class Episode {
    constructor(data, models) {
      Object.assign(this, data);
      this.geoms = models[data.model];
      this.returns = decode(data.returns, Float32Array);
      this.focuses = decode(data.focus, Float32Array);
      this.poses = decode(data.poses, Int16Array);
      this.frames = this.returns.length;
      this.duration = (this.frames - 1) / this.fps;
      this.moving = this.geoms.filter((geom) => !geom.pose).length;
    }

    // {focus, poses: one [x, y, z, w, x, y, z] per geom} at a time, between frames interpolated.
    at(time) {
      const exact = clamp(time * this.fps, 0, this.frames - 1);
      const frame = Math.min(Math.floor(exact), Math.max(0, this.frames - 2));
      const next = Math.min(frame + 1, this.frames - 1);
      const share = exact - frame;
      const focus = [0, 1, 2].map(
        (i) => this.focuses[3 * frame + i] * (1 - share) + this.focuses[3 * next + i] * share,
      );
      let number = 0;
      const poses = this.geoms.map((geom) => {
        if (geom.pose) return geom.pose;
        const from = this.pose(frame, number);
        const to = this.pose(next, number++);
        return this.between(from, to, share);
      });
      return { focus, poses };
    }

    pose(frame, number) {
      const start = 7 * (frame * this.moving + number);
      const pose = Array.from(this.poses.subarray(start, start + 7), (x) => x / 32767);
      for (let i = 0; i < 3; i++) pose[i] = pose[i] * this.span + this.focuses[3 * frame + i];
      return pose;
    }

    between(from, to, share) {
      // A quaternion and its negative are the same rotation: take the shorter way.
      const same = from[3] * to[3] + from[4] * to[4] + from[5] * to[5] + from[6] * to[6] >= 0;
      const pose = from.map((x, i) => x * (1 - share) + (i < 3 || same ? to[i] : -to[i]) * share);
      const length = Math.hypot(pose[3], pose[4], pose[5], pose[6]) || 1;
      for (let i = 3; i < 7; i++) pose[i] /= length;
      return pose;
    }

    returnAt(time) {
      return this.returns[Math.floor(clamp(time * this.fps + 1e-6, 0, this.frames - 1))];
    }
  }

  // Drawing.

  class Painter {
    constructor(canvas) {
      this.canvas = canvas;
      this.gl = canvas.getContext("webgl2", { antialias: true, stencil: true });
      if (!this.gl) throw new Error("no WebGL 2");
      this.solids = new Map();
      this.program = this.link();
      this.places = new Map();
    }

    link() {
      const { gl } = this;
      const program = gl.createProgram();
      for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
        const shader = gl.createShader(type);
        gl.shaderSource(shader, source);
        gl.compileShader(shader);
        gl.attachShader(program, shader);
      }
      gl.bindAttribLocation(program, 0, "position");
      gl.bindAttribLocation(program, 1, "normal");
      gl.linkProgram(program);
      if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
        throw new Error(`WebGL 2 refuses the shaders: ${gl.getProgramInfoLog(program)}`);
      }
      gl.useProgram(program);
      return program;
    }

    place(name) {
      if (!this.places.has(name)) {
        this.places.set(name, this.gl.getUniformLocation(this.program, name));
      }
      return this.places.get(name);
    }

    vector(name, values) { this.gl[`uniform${values.length}fv`](this.place(name), values); }

    solid(geom) {
      const { gl } = this;
      const key = geom.shape === "plane" ? "plane" : `${geom.shape} ${geom.size}`;
      if (!this.solids.has(key)) {
        const vertices = new Float32Array(solid(geom));
        const array = gl.createVertexArray();
        gl.bindVertexArray(array);
        gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
        gl.bufferData(gl.ARRAY_BUFFER, vertices, gl.STATIC_DRAW);
        for (const place of [0, 1]) {
          gl.enableVertexAttribArray(place);
          gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 24, 12 * place);
        }
        this.solids.set(key, { array, count: vertices.length / 6 });
      }
      return this.solids.get(key);
    }

    // Draws an episode at a time into a rectangle of the canvas, in pixels from the bottom left. The
    // camera looks at the point `held`, or follows the body.
    draw(episode, time, held, view, theme, [x, y, width, height]) {
      const { gl } = this;
      gl.viewport(x, y, width, height);
      gl.scissor(x, y, width, height);
      gl.enable(gl.SCISSOR_TEST);
      gl.clearColor(...theme.sky, 1);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT | gl.STENCIL_BUFFER_BIT);
      gl.enable(gl.DEPTH_TEST);
      const { focus: followed, poses } = episode.at(time);
      const focus = held ?? followed;
      const shot = view.shot(episode, focus, width / height);
      gl.uniformMatrix4fv(this.place("camera"), false, shot.matrix);
      this.vector("eye", shot.eye);
      this.vector("focus", focus);
      this.vector("light", LIGHT);
      this.vector("sky", theme.sky);
      const far = HORIZON * episode.reach;
      this.vector("fade", [0.25 * far, far]);
      const order = [...episode.geoms.keys()];
      const planes = order.filter((i) => episode.geoms[i].shape === "plane");
      const solids = order.filter((i) => episode.geoms[i].shape !== "plane");
      const opaque = solids.filter((i) => episode.geoms[i].rgba[3] >= 1);
      const clear = solids.filter((i) => episode.geoms[i].rgba[3] < 1);
      this.vector("shadow", [0, 0, 0, 0]);
      // Shadows darken what the stencil marks as ground, and each place once.
      gl.enable(gl.STENCIL_TEST);
      for (const i of planes) this.ground(episode, episode.geoms[i], poses[i], focus, far, theme);
      gl.disable(gl.STENCIL_TEST);
      gl.uniform1i(this.place("kind"), 0);
      for (const i of opaque) this.body(episode.geoms[i], poses[i]);
      gl.enable(gl.BLEND);
      gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ZERO, gl.ONE);
      gl.enable(gl.STENCIL_TEST);
      gl.depthMask(false);
      if (planes.length) this.shadows(episode, poses, opaque, poses[planes[0]], theme);
      gl.depthMask(true);
      gl.disable(gl.STENCIL_TEST);
      gl.uniform1i(this.place("kind"), 0);
      this.vector("shadow", [0, 0, 0, 0]);
      for (const i of clear) this.body(episode.geoms[i], poses[i]);
      gl.disable(gl.BLEND);
    }

    body(geom, pose) {
      this.vector("colour", geom.rgba);
      this.vector("stretch", [1, 1, 0, 0]);
      this.shape(geom, pose);
    }

    ground(episode, geom, pose, focus, far, theme) {
      const { gl } = this;
      const back = [pose[3], -pose[4], -pose[5], -pose[6]];
      const middle = rotate(back, add(focus, scale(pose, -1)));
      const edges = geom.size.slice(0, 2).map((half, axis) =>
        half === 0 || half > ENDLESS * episode.reach ? [far, middle[axis]] : [half, 0],
      );
      gl.stencilFunc(gl.ALWAYS, 1, 255);
      gl.stencilOp(gl.KEEP, gl.KEEP, gl.REPLACE);
      gl.uniform1i(this.place("kind"), 1);
      this.vector("colour", [...theme.darkTile, 1]);
      this.vector("tile", theme.lightTile);
      gl.uniform1f(this.place("side"), episode.tile);
      this.vector("stretch", [edges[0][0], edges[1][0], edges[0][1], edges[1][1]]);
      this.shape(geom, pose);
    }

    shadows(episode, poses, solids, plane, theme) {
      const { gl } = this;
      const normal = rotate(plane.slice(3), [0, 0, 1]);
      if (dot(normal, LIGHT) < 0.1) return;
      gl.stencilFunc(gl.EQUAL, 1, 255);
      gl.stencilOp(gl.KEEP, gl.KEEP, gl.INCR);
      gl.enable(gl.POLYGON_OFFSET_FILL);
      gl.polygonOffset(-2, -2);
      gl.uniform1i(this.place("kind"), 2);
      this.vector("colour", [0, 0, 0, theme.shadow]);
      this.vector("shadow", [...normal, dot(normal, plane)]);
      this.vector("stretch", [1, 1, 0, 0]);
      for (const i of solids) this.shape(episode.geoms[i], poses[i]);
      gl.disable(gl.POLYGON_OFFSET_FILL);
    }

    shape(geom, pose) {
      const { gl } = this;
      const { array, count } = this.solid(geom);
      this.vector("origin", pose.slice(0, 3));
      this.vector("turn", pose.slice(3));
      gl.bindVertexArray(array);
      gl.drawArrays(gl.TRIANGLES, 0, count);
    }
  }

  class View {
    constructor(episodes) {
      this.start = episodes[0].direction;
      this.reset();
    }

    reset() {
      [this.yaw, this.pitch] = this.start;
      this.zoom = 1;
      this.offset = [0, 0, 0];
    }

    axes() {
      const [c, s] = [Math.cos(this.pitch), Math.sin(this.pitch)];
      const back = [c * Math.cos(this.yaw), c * Math.sin(this.yaw), s];
      const right = [-Math.sin(this.yaw), Math.cos(this.yaw), 0];
      return { right, up: cross(back, right), back };
    }

    // From where all that moves is seen, seen in the direction at the start.
    distance({ extent: [right, up, near] }, aspect) {
      return (Math.max(right / aspect, up) / Math.tan(FIELD_OF_VIEW / 2) + near) / this.zoom;
    }

    shot(episode, focus, aspect) {
      const axes = this.axes();
      const distance = this.distance(episode, aspect);
      const target = add(focus, scale(this.offset, episode.reach));
      const eye = add(target, scale(axes.back, distance));
      const far = distance + 2 * HORIZON * episode.reach;
      const matrix = multiply(perspective(aspect, far / 4000, far), looking(eye, axes));
      return { matrix, eye };
    }

    turn(dx, dy) {
      this.yaw -= 0.008 * dx;
      this.pitch = clamp(this.pitch + 0.008 * dy, -0.15, 1.55);
    }

    // By a share of the panel's height; offsets count in reaches, which panels differ in.
    move(episode, dx, dy, aspect) {
      const { right, up } = this.axes();
      const size =
        (2 * Math.tan(FIELD_OF_VIEW / 2) * this.distance(episode, aspect)) / episode.reach;
      this.offset = add(this.offset, add(scale(right, -dx * size), scale(up, dy * size)));
    }

    magnify(factor) { this.zoom = clamp(this.zoom * factor, 0.15, 12); }
  }

  // What a person sees and touches.

  function element(tag, name, parent, text = "") {
    const made = document.createElement(tag);
    made.className = name;
    made.textContent = text;
    parent.append(made);
    return made;
  }

  class Viewer {
    constructor(root) {
      this.root = root;
      const data = JSON.parse(root.querySelector("script").textContent);
      this.episodes = data.panels.map((panel) => new Episode(panel, data.models));
      this.duration = Math.max(...this.episodes.map((episode) => episode.duration));
      this.view = new View(this.episodes);
      this.time = 0;
      this.speed = 1;
      this.playing = false;
      this.build();
      this.painter = new Painter(this.canvas);
      this.stay(false);
      this.readTheme();
      this.listen();
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      if ("autoplay" in root.dataset && !calm) this.play(true);
      this.refresh();
    }

    build() {
      const stage = element("div", "stage", this.root);
      this.canvas = element("canvas", "", stage);
      this.canvas.setAttribute("aria-hidden", "true");
      const panels = element("div", "panels", stage);
      this.panels = this.episodes.map((episode) => {
        const panel = element("div", "panel", panels);
        element("div", "label", panel, episode.label).title = episode.label;
        return { panel, earned: element("div", "earned", panel) };
      });
      const bar = element("div", "bar", this.root);
      this.button = element("button", "play", bar, "Play");
      this.scrubber = element("input", "", bar);
      Object.assign(this.scrubber, { type: "range", min: 0, max: this.duration, step: "any" });
      this.scrubber.setAttribute("aria-label", "time");
      this.clock = element("span", "clock", bar);
      this.speeds = element("select", "", bar);
      this.speeds.setAttribute("aria-label", "speed");
      for (const speed of SPEEDS) element("option", "", this.speeds, `${speed}x`).value = speed;
      this.speeds.value = 1;
      this.home = element("button", "", bar, "Reset view");
      this.follow = element("button", "follow", bar, "Follow");
      this.follow.hidden = !this.episodes.some((episode) => episode.follows);
      this.other = element("button", "other", bar);
      element("p", "hint", bar, HINT);
      for (const button of bar.querySelectorAll("button")) button.type = "button";
    }

    listen() {
      this.button.addEventListener("click", () => this.play(!this.playing));
      this.scrubber.addEventListener("input", () => this.seek(Number(this.scrubber.value)));
      this.speeds.addEventListener("change", () => { this.speed = Number(this.speeds.value); });
      this.home.addEventListener("click", () => this.look(() => this.view.reset()));
      this.follow.addEventListener("click", () => this.stay(!this.held));
      this.other.addEventListener("click", () => {
        this.chosen = this.isDark() ? "light" : "dark";
        this.readTheme();
      });
      this.panels.forEach(({ panel }, number) => this.touch(panel, this.episodes[number]));
      this.canvas.addEventListener("webglcontextlost", (event) => {
        event.preventDefault();
        this.fail("The browser has taken the graphics away: reload the page.");
      });
      new ResizeObserver(() => this.refresh()).observe(this.canvas);
      DARK.addEventListener("change", () => this.readTheme());
    }

    touch(panel, episode) {
      const pointers = new Map();
      const middle = () => {
        const [a, b] = [...pointers.values()];
        const at = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
        return { ...at, apart: Math.hypot(a.x - b.x, a.y - b.y) || 1 };
      };
      const move = (dx, dy) => {
        const { width, height } = panel.getBoundingClientRect();
        this.view.move(episode, dx / height, dy / height, width / height);
      };
      panel.addEventListener("pointerdown", (event) => {
        panel.setPointerCapture(event.pointerId);
        pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      });
      panel.addEventListener("pointermove", (event) => {
        const was = pointers.get(event.pointerId);
        if (!was || pointers.size > 2) return;
        const before = pointers.size === 2 ? middle() : was;
        pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
        const after = pointers.size === 2 ? middle() : pointers.get(event.pointerId);
        const [dx, dy] = [after.x - before.x, after.y - before.y];
        const moves = pointers.size === 2 || event.buttons & 6 || event.shiftKey;
        this.look(() => {
          if (moves) move(dx, dy);
          else this.view.turn(dx, dy);
          if (pointers.size === 2) this.view.magnify(after.apart / before.apart);
        });
      });
      for (const name of ["pointerup", "pointercancel"]) {
        panel.addEventListener(name, (event) => pointers.delete(event.pointerId));
      }
      panel.addEventListener("contextmenu", (event) => event.preventDefault());
      panel.addEventListener("dblclick", () => this.look(() => this.view.reset()));
      panel.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    }

    wheel(event) {
      // Within a longer page the wheel scrolls, until the viewer is chosen.
      if (!("autoplay" in this.root.dataset) && !this.root.contains(document.activeElement)) return;
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      this.look(() => this.view.magnify(Math.exp(-0.0015 * lines * event.deltaY)));
    }

    // Returns whether the key means something.
    key(name) {
      switch (name) {
        case " ": this.play(!this.playing); return true;
        case "ArrowLeft": this.step(-1); return true;
        case "ArrowRight": this.step(1); return true;
        case "ArrowUp": this.hasten(1); return true;
        case "ArrowDown": this.hasten(-1); return true;
        case "f": this.stay(!this.held); return true;
      }
      return false;
    }

    // Keeps the cameras where they are now, or lets them follow the bodies.
    stay(on) {
      this.held = on ? this.episodes.map((episode) => episode.at(this.time).focus) : undefined;
      this.follow.setAttribute("aria-pressed", !on);
      this.refresh();
    }

    step(frames) {
      this.play(false);
      const { fps } = this.episodes[0];
      this.seek((Math.round(this.time * fps) + frames) / fps);
    }

    hasten(by) {
      this.speed = SPEEDS[clamp(SPEEDS.indexOf(this.speed) + by, 0, SPEEDS.length - 1)];
      this.speeds.value = this.speed;
    }

    play(on) {
      if (on && this.time >= this.duration) this.time = 0;
      this.playing = on;
      this.last = undefined;
      this.button.textContent = on ? "Pause" : "Play";
      this.refresh();
    }

    seek(time) {
      this.time = clamp(time, 0, this.duration);
      this.refresh();
    }

    look(change) {
      change();
      this.refresh();
    }

    refresh() {
      if (this.asked || this.failed) return;
      this.asked = true;
      requestAnimationFrame((now) => {
        this.asked = false;
        if (this.playing) this.advance(now);
        this.draw();
        if (this.playing) this.refresh();
      });
    }

    advance(now) {
      this.time += (this.speed * Math.min(100, now - (this.last ?? now))) / 1000;
      this.last = now;
      if (this.time > this.duration + PAUSE * this.speed) this.time = 0;
    }

    isDark() { return this.chosen ? this.chosen === "dark" : DARK.matches; }

    readTheme() {
      this.root.dataset.theme = this.isDark() ? "dark" : "light";
      this.other.textContent = this.isDark() ? "Light" : "Dark";
      const style = getComputedStyle(this.root);
      const colour = (name) => {
        const text = style.getPropertyValue(name).trim();
        return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16) / 255);
      };
      const sky = colour("--sky");
      this.theme = {
        sky,
        lightTile: colour("--light-tile"),
        darkTile: colour("--dark-tile"),
        shadow: sky[0] > 0.5 ? 0.3 : 0.5,
      };
      this.refresh();
    }

    draw() {
      if (this.failed) return;
      const ratio = Math.min(devicePixelRatio || 1, 2);
      const frame = this.canvas.getBoundingClientRect();
      const [width, height] = [frame.width, frame.height].map((x) => Math.round(x * ratio));
      if (!width || !height) return;
      if (this.canvas.width !== width || this.canvas.height !== height) {
        Object.assign(this.canvas, { width, height });
      }
      this.panels.forEach(({ panel, earned }, number) => {
        const episode = this.episodes[number];
        const rect = panel.getBoundingClientRect();
        const left = (rect.left - frame.left) * ratio;
        const bottom = (frame.bottom - rect.bottom) * ratio;
        const area = [left, bottom, rect.width * ratio, rect.height * ratio].map(Math.round);
        if (area[2] > 0 && area[3] > 0) {
          const focus = this.held?.[number];
          this.painter.draw(episode, this.time, focus, this.view, this.theme, area);
        }
        const over = this.time >= episode.duration;
        const end = over ? `, ended at ${episode.duration.toFixed(1)} s` : "";
        earned.textContent = `return ${episode.returnAt(this.time).toFixed(1)}${end}`;
        earned.classList.toggle("over", over);
      });
      const shown = Math.min(this.time, this.duration);
      this.scrubber.value = shown;
      this.clock.textContent = `${shown.toFixed(1)} / ${this.duration.toFixed(1)} s`;
      this.root.dataset.state = "drawn";
      this.root.dataset.time = shown.toFixed(3);
    }

    fail(message) {
      this.failed = true;
      this.playing = false;
      refuse(this.root, message);
    }
  }

  function refuse(root, message) {
    for (const child of [...root.children]) if (child.tagName !== "SCRIPT") child.remove();
    element("p", "message", root, message).setAttribute("role", "alert");
    root.dataset.state = "failed";
  }

  // Whether the element that has the focus does something with a key itself.
  function taken({ target, key }) {
    if (target.tagName === "BUTTON") return key === " " || key === "Enter";
    if (target.tagName === "INPUT") return target.type !== "range";
    return ["SELECT", "TEXTAREA"].includes(target.tagName);
  }

  function start() {
    const viewers = [];
    for (const root of document.querySelectorAll(".viewer")) {
      root.dataset.theme = DARK.matches ? "dark" : "light";
      try {
        viewers.push(new Viewer(root));
      } catch (error) {
        const missing = error.message.includes("WebGL 2");
        refuse(root, missing
          ? "This picture needs WebGL 2, which this browser does not offer or has turned off: try " +
            `another browser, or turn on hardware acceleration. (${error.message})`
          : `This picture cannot be shown: ${error.message}`);
      }
    }
    let chosen = viewers[0];
    for (const viewer of viewers) {
      viewer.root.addEventListener("pointerdown", () => { chosen = viewer; });
      viewer.root.addEventListener("focusin", () => { chosen = viewer; });
    }
    addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || !chosen || taken(event)) return;
      // Within a longer page the keys scroll, until a viewer is chosen.
      const whole = "autoplay" in chosen.root.dataset;
      if (!whole && !chosen.root.contains(document.activeElement)) return;
      if (chosen.key(event.key)) event.preventDefault();
    });
  }

  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
  else start();
})();
