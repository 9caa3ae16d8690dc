"""Things that stand in the street: trees from noise; cars, people and signs from projected polygons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from slimseg.demonstration.canvas import OVERSAMPLING, Canvas, decode, encode, in_air
from slimseg.demonstration.classes import Label
from slimseg.demonstration.texture import Array, noise
from slimseg.demonstration.world import Camera, Generator, Light, Thing

Point = tuple[float, float, float]
LABELS = {"tree": Label.VEGETATION, "car": Label.CAR, "person": Label.PERSON, "sign": Label.SIGN}
REACH_M = {"car": 2.6, "person": 0.6, "sign": 1.1}  # half the width of a sprite's box


class Brush:
    """Draws world polygons into one oversampled sprite."""

    def __init__(self, camera: Camera, light: Light, thing: Thing, box: tuple[slice, slice]) -> None:
        self.camera, self.light, self.thing, self.box = camera, light, thing, box
        height, width = box[0].stop - box[0].start, box[1].stop - box[1].start
        self.size = (width, height)
        self.sprite = Image.new("RGBA", (width * OVERSAMPLING, height * OVERSAMPLING))
        self.draw = ImageDraw.Draw(self.sprite)

    def polygon(self, points: Sequence[Point], albedo: Array, normal: tuple[float, float, float]) -> None:
        self.glow(points, albedo * self.light.on(normal))

    def glow(self, points: Sequence[Point], colour: Array) -> None:
        """A polygon that is drawn in `colour` itself, which is light, not an albedo to be lit."""
        x, y, z = np.array(points).T
        col, row = self.camera.project(x, y, z)
        corners = np.stack([col - self.box[1].start, row - self.box[0].start], 1) * OVERSAMPLING
        self.draw.polygon([(float(u), float(v)) for u, v in corners], fill=(*encode(self._hazy(colour)), 255))

    def disc(self, centre: Point, rx: float, ry: float, albedo: Array, normal: tuple[float, float, float]) -> None:
        """An ellipse that faces the camera, radii in metres."""
        self.polygon(_ring(centre, rx, ry), albedo, normal)

    def _hazy(self, colour: Array) -> Array:
        return in_air(colour, self.thing.z, self.light)


def paint_thing(canvas: Canvas, camera: Camera, light: Light, thing: Thing) -> None:
    if thing.kind == "tree":
        _paint_tree(canvas, camera, light, thing)
        return
    reach = REACH_M[thing.kind]
    left, top = camera.project(thing.x - reach, thing.height + 0.8, thing.z)
    right, bottom = camera.project(thing.x + reach, -0.2, thing.z)
    box = canvas.box(float(left), float(top), float(right), float(bottom))
    brush = Brush(camera, light, thing, box)
    if min(brush.size) < 2:
        return
    {"car": _draw_car, "person": _draw_person, "sign": _draw_sign}[thing.kind](brush, np.random.default_rng(thing.seed))
    colour, alpha = decode(brush.sprite, brush.size)
    canvas.paint(box, colour, alpha, LABELS[thing.kind])


def _paint_tree(canvas: Canvas, camera: Camera, light: Light, thing: Thing) -> None:
    rng = np.random.default_rng(thing.seed)
    left, top = camera.project(thing.x - 1.5 * thing.radius, thing.height * 1.15, thing.z)
    right, bottom = camera.project(thing.x + 1.5 * thing.radius, 0.0, thing.z)
    box = canvas.box(float(left), float(top), float(right), float(bottom))
    row, col = np.mgrid[box].astype(np.float32)
    if row.size == 0:
        return
    metre = thing.z / camera.focal_px
    u = (col + 0.5 - camera.vanishing_col) * metre + camera.x - thing.x
    v = camera.y - (row + 0.5 - camera.horizon_row) * metre
    bark = np.array([0.13, 0.09, 0.06]) * light.on((-0.6, 0, -0.8))
    trunk = np.clip((0.06 + 0.03 * thing.height - np.abs(u)) / metre + 0.5, 0, 1) * (v < 0.7 * thing.height)
    canvas.paint(box, in_air(bark * (1 + 0.9 * u[..., None]), thing.z, light), trunk, Label.VEGETATION)

    leaf = noise(u * 16 + thing.x * 9, v * 16 + thing.z * 5, 0.75)
    crown, lit = np.full(u.shape, -1e3, np.float32), np.zeros_like(u)
    for _ in range(6):
        cu, cv = rng.normal(0, 0.38, 2) * thing.radius * np.array([1, 0.8])
        size = thing.radius * rng.uniform(0.5, 0.8)
        du, dv = (u - cu) / size, (v - 0.68 * thing.height - cv) / size
        inside = 1 - np.hypot(du, dv)
        front = inside > crown
        crown = np.maximum(crown, inside)
        shade = du * light.sun[0] + dv * light.sun[1] - np.sqrt(np.clip(inside, 0, 1)) * light.sun[2]
        lit = np.where(front, shade, lit)
    alpha = np.clip((crown + 0.2 * leaf) * thing.radius * 0.8 / metre / 2 + 0.5, 0, 1)
    green = np.array([rng.uniform(0.07, 0.3), rng.uniform(0.17, 0.27), rng.uniform(0.03, 0.07)])
    strength = np.clip(0.45 + 0.55 * lit, 0.12, 1)[..., None]
    shade = light.ambient * (0.55 + 0.45 * strength) + light.sun_colour * strength * 0.75
    colour = green * shade * np.clip(1 + 0.75 * leaf, 0.25, 2)[..., None]
    canvas.paint(box, in_air(colour, thing.z, light), alpha, Label.VEGETATION)


BACK = (0.0, 0.0, -1.0)
UP = (0.0, 1.0, 0.0)
PAINTS = (  # albedo: red, silver, navy, black, graphite, green, yellow, white, blue
    (0.5, 0.03, 0.03), (0.6, 0.6, 0.6), (0.05, 0.1, 0.3), (0.025, 0.025, 0.03), (0.3, 0.31, 0.33),
    (0.08, 0.25, 0.2), (0.65, 0.45, 0.05), (0.7, 0.68, 0.62), (0.1, 0.2, 0.42),
)  # fmt: skip
RUBBER, GLASS = np.array([0.02, 0.02, 0.022]), np.array([0.05, 0.06, 0.075])


def _draw_car(brush: Brush, rng: Generator) -> None:
    """A body and a narrower cabin; draws only the faces that the camera can see, far ones first."""
    car, camera = brush.thing, brush.camera
    paint = np.array(PAINTS[rng.integers(len(PAINTS))]) * rng.uniform(0.8, 1.2)
    length, width, roof, waist, sill = rng.uniform(3.7, 4.6), 0.88, car.height, 0.58 * car.height, 0.26
    glass = GLASS + brush.light.sky_low * 0.14
    near, far = car.z, car.z + length
    boot = rng.uniform(0.05, 0.9)  # distance in metres from the car's near end to the cabin
    cabin = (near + boot, near + boot + 0.35, near + length * 0.66, near + length * 0.8)
    right_seen = camera.x > car.x
    edge = car.x + (width if right_seen else -width)
    inset = car.x + (0.8 * width if right_seen else -0.8 * width)
    out = (1.0 if right_seen else -1.0, 0.0, 0.0)
    if abs(camera.x - car.x) > width:
        brush.polygon([(edge, sill, near), (edge, waist, near), (edge, waist, far), (edge, sill, far)], paint, out)
        for hub in (near + 0.75, far - 0.8):
            _draw_wheel(brush, edge, hub)
    if camera.y > waist:
        a, b = car.x - width, car.x + width
        brush.polygon([(a, waist, near), (b, waist, near), (b, waist, far), (a, waist, far)], paint, UP)
    if abs(camera.x - car.x) > 0.8 * width:
        side = [(edge, waist, cabin[0]), (inset, roof, cabin[1]), (inset, roof, cabin[2]), (edge, waist, cabin[3])]
        brush.polygon(side, paint, out)
        brush.glow([_towards(p, side, 0.8) for p in side], glass)
    a, b = car.x - 0.8 * width, car.x + 0.8 * width
    if camera.y > roof:
        brush.polygon([(a, roof, cabin[1]), (b, roof, cabin[1]), (b, roof, cabin[2]), (a, roof, cabin[2])], paint, UP)
    sill_a, sill_b = (car.x - width, waist, cabin[0]), (car.x + width, waist, cabin[0])
    rear = [sill_a, (a, roof, cabin[1]), (b, roof, cabin[1]), sill_b]
    brush.polygon(rear, paint, (0, 0.5, -0.85))
    brush.glow([_towards(p, rear, 0.82) for p in rear], glass * 1.2)
    for x in (car.x - 0.72 * width, car.x + 0.72 * width):
        _face(brush, x, 0.0, near, 0.13, 0.34, RUBBER)
    _face(brush, car.x, sill, near, width, waist, paint)
    _face(brush, car.x, sill - 0.04, near, width, sill + 0.16, paint * 0.35 + 0.01)  # bumper
    _face(brush, car.x, 0.48, near, 0.26, 0.6, np.array([0.6, 0.6, 0.5]))  # number plate
    coming = car.x < 0
    lamp = np.array([1.0, 0.95, 0.8]) * (0.7 + brush.light.evening) if coming else np.array([0.55, 0.02, 0.02])
    for x in (car.x - 0.78 * width, car.x + 0.78 * width):
        brush.glow(_rectangle(x, waist - 0.24, near, 0.14, waist - 0.09), lamp)


def _face(brush: Brush, x: float, low: float, z: float, half: float, high: float, albedo: Array) -> None:
    """A rectangle that faces the camera; `half` is half its width."""
    brush.polygon(_rectangle(x, low, z, half, high), albedo, BACK)


def _rectangle(x: float, low: float, z: float, half: float, high: float) -> list[Point]:
    return [(x - half, low, z), (x + half, low, z), (x + half, high, z), (x - half, high, z)]


def _ring(centre: Point, rx: float, ry: float) -> list[Point]:
    """An ellipse that faces the camera."""
    x, y, z = centre
    return [(x + rx * np.cos(a), y + ry * np.sin(a), z) for a in np.linspace(0, 2 * np.pi, 15)[:-1]]


def _towards(point: Point, polygon: Sequence[Point], share: float) -> Point:
    """A corner moved towards the middle, such as a pane's inside its frame."""
    x, y, z = (np.array(point) - (middle := np.mean(polygon, axis=0))) * share + middle
    return float(x), float(y), float(z)


def _draw_wheel(brush: Brush, x: float, z: float) -> None:
    for radius, albedo in ((0.36, RUBBER), (0.2, np.array([0.32, 0.32, 0.34]))):
        turn = np.linspace(0, 2 * np.pi, 15)[:-1]
        rim = [(x, 0.36 + radius * np.sin(a), z + radius * np.cos(a)) for a in turn]
        brush.polygon(rim, albedo, (np.sign(brush.camera.x - x), 0, 0))


def _draw_person(brush: Brush, rng: Generator) -> None:
    body, z = brush.thing, brush.thing.z
    h, x = body.height, body.x
    coat = rng.uniform(0.02, 0.5, 3) * rng.uniform(0.4, 1.2)
    trousers = rng.uniform(0.02, 0.16, 3)
    skin = np.array([0.55, 0.36, 0.26]) * rng.uniform(0.3, 1.1)
    stride = rng.uniform(0.05, 0.2)
    normal = (-0.4, 0.2, -0.9)
    for step in (-stride, stride):
        side, swing = float(np.sign(step)), 0.2 * step
        leg = ((0.3 * step - 0.11, 0.52), (0.3 * step + 0.11, 0.52), (step + 0.09, 0.0), (step - 0.09, 0.0))
        arm = ((0.2 * side, 0.82), (0.31 * side, 0.78), (0.36 * side + swing, 0.45), (0.25 * side + swing, 0.44))
        brush.polygon([(x + u, v * h, z) for u, v in leg], trousers * (1.0 if step > 0 else 0.75), normal)
        brush.polygon([(x + u, v * h, z) for u, v in arm], coat * 0.8, normal)
    torso = [(x - 0.18, 0.47 * h, z), (x - 0.25, 0.78 * h, z), (x - 0.14, 0.84 * h, z)]
    torso += [(2 * x - px, py, pz) for px, py, pz in reversed(torso)]
    brush.polygon(torso, coat, normal)
    brush.disc((x, 0.915 * h, z), 0.115, 0.145, skin, normal)
    hair = rng.choice([0.02, 0.08, 0.3]) * np.array([1.0, 0.75, 0.5])
    brush.disc((x, 0.955 * h, z), 0.118, 0.095, hair, normal)


def _draw_sign(brush: Brush, rng: Generator) -> None:
    """A post, at least 3 pixels of a 256-pixel image wide, with a plate or a traffic light on top."""
    post, z, x = brush.thing, brush.thing.z, brush.thing.x
    half = max(0.07, 1.6 * z / brush.camera.focal_px * brush.camera.width_px / 256)
    top = post.height
    _face(brush, x, 0.0, z, half, top, np.array([0.28, 0.29, 0.3]))
    _face(brush, x + 0.6 * half, 0.0, z, 0.4 * half, top, np.array([0.13, 0.135, 0.14]))
    red, white, blue = np.array([0.6, 0.02, 0.03]), np.array([0.75, 0.75, 0.72]), np.array([0.02, 0.12, 0.55])
    kind = rng.integers(4)
    if kind == 0:
        brush.disc((x, top, z), 0.48, 0.48, red, BACK)
        brush.disc((x, top, z), 0.34, 0.34, white, BACK)
    elif kind == 1:
        triangle = ((-0.6, -0.4), (0.6, -0.4), (0.0, 0.65))
        for scale, albedo in ((1.0, red), (0.62, white)):
            brush.polygon([(x + scale * u, top + scale * v, z) for u, v in triangle], albedo, BACK)
    elif kind == 2:
        _face(brush, x, top - 0.45, z, 0.48, top + 0.45, white)
        _face(brush, x, top - 0.4, z, 0.42, top + 0.4, blue)
        _face(brush, x, top - 0.25, z, 0.09, top + 0.25, white)
    else:
        _face(brush, x, top - 0.65, z, 0.32, top + 0.6, np.array([0.025, 0.03, 0.025]))
        lamp = rng.integers(3)
        for i, colour in enumerate(((1.5, 0.1, 0.05), (1.4, 0.8, 0.05), (0.1, 1.4, 0.4))):
            y = top + 0.38 - 0.4 * i
            brush.glow(_ring((x, y, z), 0.16, 0.16), np.array(colour) * (1.0 if i == lamp else 0.07))
