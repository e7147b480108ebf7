"""Draws a look with an external renderer, by hooks on one head.

The renderer draws a head in fixed passes: shadows, skin, clothes, transparent parts, hair. A look's
strands and meshes are drawn at the end of the passes that they belong to, with the uniforms that
the renderer has just set for its own programs. This module owns the OpenGL objects; it knows no
shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from wsavatar.training.looks.look import FacialHair, Look
from wsavatar.training.looks.mouth import light_inside, place_mouth, shape_teeth
from wsavatar.training.looks.shapes import Mesh, glasses, hair_outside, headwear, occluder
from wsavatar.training.looks.skin import paint_skin, shape_lips
from wsavatar.training.looks.strands import Strands, grow

__all__ = ["apply", "person_mask", "transparent_background"]

_TURN = """
vec3 turned(vec3 v, vec3 r) {
  float a = length(r); if (a < 1e-5) return v;
  vec3 k = r / a; return v * cos(a) + cross(k, v) * sin(a) + k * dot(k, v) * (1. - cos(a));
}
"""
_STRAND_VERTEX = (
    """#version 330
in vec3 pos; in vec3 tan; in vec3 nrm; in vec3 rest; in vec2 tr;
uniform mat4 VP; uniform vec3 rot; uniform vec3 pivot; uniform vec3 trans;
out vec3 wp; out vec3 wt; out vec3 wn; out vec2 f;"""
    + _TURN
    + """
void main() {  // follows the skin under the root: the renderer's own weight of a rotation
  float w = max(smoothstep(-13.5, -4., rest.y),
                smoothstep(4.6, 7.2, rest.z) * step(-12.5, rest.y));
  vec3 r = rot * w; wp = turned(pos - pivot, r) + pivot + trans;
  wt = turned(tan, r); wn = turned(nrm, r); f = tr; gl_Position = VP * vec4(wp, 1.);
}
"""
)
_MESH_VERTEX = (
    """#version 330
in vec3 pos; in vec3 nrm; in vec3 col;
uniform mat4 VP; uniform vec3 rot; uniform vec3 pivot; uniform vec3 trans;
out vec3 wp; out vec3 wn; out vec3 rp; out vec3 alb;"""
    + _TURN
    + """
void main() {
  vec3 r = rot * smoothstep(-16., -6., pos.y);
  wp = turned(pos - pivot, r) + pivot + trans; wn = turned(nrm, r);
  rp = pos; alb = col; gl_Position = VP * vec4(wp, 1.);
}
"""
)
_MESH_FRAGMENT = """#version 330
in vec3 wp; in vec3 wn; in vec3 rp; in vec3 alb; out vec4 o;
uniform float roughness; uniform float reflectance; uniform float wrap; uniform float weave;
uniform float lens; uniform float shine;
//COMMON
void main() {
  vec3 V = normalize(eye - wp), N = normalize(wn); if (dot(N, V) < 0.) N = -N;
  if (lens > 0.) {
    vec3 R = reflect(-V, N); float F = .04 + .6 * pow(1. - max(dot(N, V), 0.), 4.);
    vec3 s = env(R) * F * 2.5 * shine;
    for (int i = 0; i < 2; i++) s += Lc[i] * spec(N, V, Ld[i], .12, .05) * shine;
    float l = clamp(dot(s, vec3(.33)), 0., .7); float a = clamp(lens + l, 0., .97);
    o = vec4(tone((s + alb * lens * .3) / max(a, .02)), a); return;
  }
  float grain = vn(rp.xy * 9.) * .5 + vn(rp.yz * 21.) * .5;
  float knit = .5 + .5 * sin(atan(rp.x, rp.z) * 90.) * sin(rp.y * 7. + rp.z * 3.);
  vec3 c = vec3(0.), base = alb * mix(1., .55 + .6 * mix(knit, grain, .5), weave);
  vec3 w = wrap * vec3(1., .45, .3);
  for (int i = 0; i < 4; i++) {
    float sh = i == 0 ? shad(wp, N, .012) : 1.;
    vec3 k = max((vec3(dot(N, Ld[i])) + w) / ((1. + w) * (1. + w)), 0.);
    c += base * Lc[i] * k * sh / PI + Lc[i] * spec(N, V, Ld[i], roughness, reflectance) * sh;
    c += base * Lc[i] * weave * .06 * pow(1. - max(dot(N, V), 0.), 3.) * sh;
  }
  c += base * mix(gnd, sky, .5 + .5 * N.y);
  c += env(reflect(-V, N)) * reflectance * max(0., .6 - roughness);
  o = vec4(tone(c), 1.);
}
"""
_DEPTH_ONLY = "#version 330\nout vec4 o; void main() { o = vec4(1.); }"
_BACKGROUND = (
    "#version 330\nin vec2 p; out vec2 q; void main() { q = p; gl_Position = vec4(p, .9999, 1.); }",
    """#version 330
in vec2 q; out vec4 o; uniform vec3 c0; uniform vec3 c1; uniform vec2 ctr;
void main() {
  float d = length((q - ctr) * vec2(.8, .9));
  float n = fract(sin(dot(gl_FragCoord.xy, vec2(12.98, 78.23))) * 43758.5);
  o = vec4(mix(c0, c1, smoothstep(0., 1.6, d)) + (n - .5) / 200., 0.);
}
""",
)


def transparent_background(renderer: Any) -> None:
    """From now on the renderer's pictures have an alpha of 0 where the person is not."""
    if getattr(renderer, "person_alpha", False):
        return
    context = renderer.ctx
    renderer.bg = context.program(*_BACKGROUND)
    corners = context.buffer(np.array([-1, -1, 3, -1, -1, 3], np.float32))
    renderer.bgv = context.vertex_array(renderer.bg, [(corners, "2f", "p")])
    renderer.person_alpha = True


def person_mask(renderer: Any) -> np.ndarray:
    """How much of each pixel of the last picture is the person: uint8 [size, size].

    The renderer needs `transparent_background` before that picture.
    """
    pixels = np.frombuffer(renderer.fb.read(components=4), np.uint8)
    alpha = pixels.reshape(renderer.n, renderer.n, 4)[::-1, :, 3]
    size = (renderer.size, renderer.size)
    mask: np.ndarray = cv2.resize(np.ascontiguousarray(alpha), size, interpolation=cv2.INTER_AREA)
    return mask


def apply(heads: Any, renderer: Any, head: Any, look: Look, *, detail: bool = True) -> None:
    """Give the look to a head that was made with ``look.head`` among its arguments.

    ``heads``: the renderer's module. Call once, before the head's first picture; from then on
    ``renderer.render(head, …)`` draws it, and ``renderer.landmarks`` stays exact. Without
    ``detail`` beards have half as many strands, twice as wide.
    """
    shape_lips(heads, head, look.lips.thickness)
    shape_teeth(heads, head, look.teeth)
    place_mouth(heads, head, look.teeth)
    paint_skin(heads, head, look.skin, look.lips, look.facial_hair)
    if look.headwear:
        _cut_hair(head, look)
    head.gpu(renderer)
    head.va_mouth = _Hook(lambda: light_inside(renderer), head.va_mouth.render)
    extras = _Extras(heads, renderer)
    hair = look.facial_hair
    if hair and (strands := grow(heads, head, hair, scale=1.0 if detail else 0.5)):
        extras.add_strands(strands, hair)
    skin = np.unique(heads.TRI[heads.TM == 0])
    if look.glasses:
        extras.add_meshes(glasses(head.base, skin, look.glasses))
    if look.headwear:
        extras.add_meshes(headwear(heads, head.base, look.headwear))
    if look.occluder:
        r, g, b = (float(c) for c in heads.s2l(head.skin) * 0.92)
        extras.add_meshes(occluder(head.base, skin, look.occluder, (r, g, b)))
    extras.attach(head)


def _cut_hair(head: Any, look: Look) -> None:
    """Remove the hair that the headwear covers."""
    if not head.hairn or not look.headwear:
        return
    free = hair_outside(look.headwear, head.hvb[:, :3])
    triangles = head.hix.reshape(-1, 3)
    left = triangles[free[triangles].all(1)]
    head.hix = np.ascontiguousarray(left.ravel())
    head.hix_sh = np.ascontiguousarray(left[::3].ravel())
    if not len(left):
        head.hairn = 0


class _Hook:
    """A drawable of two parts; it stands in for a vertex array of a head."""

    def __init__(self, first: Callable[[], None], then: Callable[[], None]) -> None:
        self._first, self._then = first, then

    def render(self) -> None:
        self._first()
        self._then()


class _MeshBuffer:
    """Stands in for a head's buffer of the deformed mesh, and lets the strands follow it."""

    def __init__(self, buffer: Any, follow: Callable[[np.ndarray], None]) -> None:
        self._buffer, self._follow = buffer, follow

    def write(self, data: bytes) -> None:
        self._buffer.write(data)
        self._follow(np.frombuffer(data, np.float32).reshape(-1, 9))


class _Extras:
    """The OpenGL objects of one head's strands and meshes."""

    def __init__(self, heads: Any, renderer: Any) -> None:
        self._heads, self._renderer = heads, renderer
        context = renderer.ctx
        self._row = np.zeros(heads.NV, np.int64)  # a row of the renderer's buffer by vertex
        self._row[heads.RV] = np.arange(len(heads.RV))
        if not hasattr(renderer, "look_programs"):
            mesh = _MESH_FRAGMENT.replace("//COMMON", heads.COMMON)
            renderer.look_programs = (
                context.program(_STRAND_VERTEX, heads.HFS),
                context.program(_STRAND_VERTEX, _DEPTH_ONLY),
                context.program(_MESH_VERTEX, mesh),
                context.program(_MESH_VERTEX, _DEPTH_ONLY),
            )
        self._strand, self._strand_depth, self._mesh, self._mesh_depth = renderer.look_programs
        self._strands: tuple[Strands, FacialHair, Any, Any, Any] | None = None
        self._solid: list[tuple[Mesh, Any, Any]] = []
        self._lenses: list[tuple[Mesh, Any]] = []

    def add_strands(self, strands: Strands, hair: FacialHair) -> None:
        context = self._renderer.ctx
        fixed = strands.fixed()
        buffer = context.buffer(reserve=fixed.size // 5 * 9 * 4, dynamic=True)
        parts = [
            (buffer, "3f 3f 3f", "pos", "tan", "nrm"),
            (context.buffer(fixed.tobytes()), "3f 2f", "rest", "tr"),
        ]
        order = context.buffer(strands.indices().tobytes())
        drawn, shadow = (
            context.vertex_array(program, parts, order, skip_errors=True)
            for program in (self._strand, self._strand_depth)
        )
        self._strands = strands, hair, buffer, drawn, shadow

    def add_meshes(self, meshes: list[Mesh]) -> None:
        context = self._renderer.ctx
        for mesh in meshes:
            a, b, c = (mesh.points[mesh.triangles[:, k]] for k in range(3))
            normals = np.zeros_like(mesh.points)
            for k in range(3):
                np.add.at(normals, mesh.triangles[:, k], np.cross(b - a, c - a))
            normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
            data = np.concatenate([mesh.points, normals, mesh.colours], 1).astype(np.float32)
            parts = [(context.buffer(data.tobytes()), "3f 3f 3f", "pos", "nrm", "col")]
            order = context.buffer(mesh.triangles.astype(np.int32).tobytes())
            drawn, shadow = (
                context.vertex_array(program, parts, order, skip_errors=True)
                for program in (self._mesh, self._mesh_depth)
            )
            if mesh.finish.lens > 0:
                self._lenses.append((mesh, drawn))
            else:
                self._solid.append((mesh, drawn, shadow))

    def attach(self, head: Any) -> None:
        """Hook into the head's passes."""
        head.va_sh = _Hook(head.va_sh.render, self._draw_shadows)
        head.vg = _Hook(head.vg.render, self._draw_solid)
        if self._lenses and head.hairn:
            head.vh = _Hook(head.vh.render, self._draw_lenses)
        elif self._lenses:
            head.va_tr = _Hook(head.va_tr.render, self._draw_lenses)
        if self._strands:
            head.vdyn = _MeshBuffer(head.vdyn, self._follow)

    def _follow(self, mesh: np.ndarray) -> None:
        assert self._strands
        strands, _, buffer, _, _ = self._strands
        rows = mesh[self._row]
        buffer.write(strands.vertices(rows[:, :3], rows[:, 3:6]).tobytes())

    def _draw_shadows(self) -> None:
        source = self._renderer.facesh
        if self._strands:
            _copy_uniforms(source, self._strand_depth)
            self._strands[4].render()
        if self._solid:
            _copy_uniforms(source, self._mesh_depth)
            for _, _, shadow in self._solid:
                shadow.render()

    def _draw_solid(self) -> None:
        source = self._renderer.face["P_SKIN"]
        if self._strands:
            _, hair, _, drawn, _ = self._strands
            _copy_uniforms(source, self._strand)
            light = np.array(hair.colour) + hair.grey * 0.35
            tip = light * (1.35 + 0.5 * hair.grey)
            self._strand["hcol"].value, self._strand["htip"].value = tuple(light), tuple(tip)
            self._strand["hspec"].value = 0.55
            drawn.render()
        if self._solid:
            _copy_uniforms(source, self._mesh)
            for mesh, drawn, _ in self._solid:
                self._set_finish(mesh)
                drawn.render()

    def _draw_lenses(self) -> None:
        context = self._renderer.ctx
        _copy_uniforms(self._renderer.face["P_SKIN"], self._mesh)
        context.enable(context.BLEND)
        self._renderer.ms.depth_mask = False
        for mesh, drawn in self._lenses:
            self._set_finish(mesh)
            drawn.render()
        self._renderer.ms.depth_mask = True
        context.disable(context.BLEND)

    def _set_finish(self, mesh: Mesh) -> None:
        for name in ("roughness", "reflectance", "wrap", "weave", "lens", "shine"):
            self._mesh[name].value = getattr(mesh.finish, name)


def _copy_uniforms(source: Any, target: Any) -> None:
    """Set each uniform that both programs have to the source's value."""
    for name in target:
        if name in source and hasattr(target[name], "write"):
            target[name].write(source[name].read())
