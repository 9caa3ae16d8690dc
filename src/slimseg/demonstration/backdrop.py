"""Sky, ground and facades, by intersecting each pixel's ray with planes: no loop over pixels."""

from __future__ import annotations

import numpy as np

from slimseg.demonstration.canvas import Canvas, in_air
from slimseg.demonstration.classes import Label
from slimseg.demonstration.texture import Array, hashed, noise, smooth_noise, stripe, stripes
from slimseg.demonstration.world import FAR_M, Building, Camera, Light, Street


def paint_sky(canvas: Canvas, camera: Camera, light: Light, salt: float) -> None:
    """A gradient, glow around the sun, clouds on a plane overhead, and a line of trees on the horizon."""
    rows = min(camera.height_px, int(camera.horizon_row) + 2)
    row, col = np.mgrid[:rows, : camera.width_px].astype(np.float32)
    up = np.maximum(camera.horizon_row - row, 0.5) / camera.focal_px
    across = (col - camera.vanishing_col) / camera.focal_px
    blend = np.clip(up / 0.55, 0, 1)[..., None] ** 0.7
    sky = light.sky_low + (light.sky_top - light.sky_low) * blend
    length = np.sqrt(up**2 + across**2 + 1)
    towards_sun = np.clip((across * light.sun[0] + up * light.sun[1] + light.sun[2]) / length, 0, 1)
    sky = sky + light.sun_colour * (0.35 * towards_sun**8 + 0.8 * towards_sun**120)[..., None]
    distance = 14 / (up + 0.06)
    cloud = smooth_noise(across * distance * 0.6 + salt, distance + salt, 1.5)
    cover = np.clip((cloud + light.clouds * 1.1 - 0.75) * 2.2, 0, 0.92)[..., None]
    white = light.sky_low * 0.6 + light.sun_colour * 0.35 + 0.12
    canvas.image[:rows] = sky + (white * (1 - 0.25 * np.clip(cloud, 0, 1)[..., None]) - sky) * cover
    hills = 0.03 + 0.016 * noise(col[0] * (90 / camera.width_px) + salt, col[0] * 0 + salt, 1.0)
    alpha = np.clip((hills - up) * camera.focal_px + 0.5, 0, 1)
    colour = in_air(np.array([0.07, 0.1, 0.05], np.float32) * light.on((0, 0.7, -0.7)), 1.5 * FAR_M, light)
    canvas.paint((slice(0, rows), slice(None)), colour, alpha, Label.VEGETATION)


def paint_ground(canvas: Canvas, camera: Camera, light: Light, street: Street) -> None:
    """The road with its markings, the pavement and the grass, with the shadows of buildings and things on them."""
    first = int(camera.horizon_row) + 1
    row, col = np.mgrid[first : camera.height_px, : camera.width_px].astype(np.float32)
    z = np.minimum(camera.focal_px * camera.y / (row + 0.5 - camera.horizon_row), 400)
    x = (col + 0.5 - camera.vanishing_col) * z / camera.focal_px + camera.x
    wide, deep = z / camera.focal_px, z * z / (camera.focal_px * camera.y)  # metres on the ground per pixel
    aside = np.abs(x)
    rough = noise(x * 14 + street.salt, z * 14, 0.7) * np.clip(1.3 - deep * 2, 0.15, 1)
    patches = noise(x * 2.5, z * 0.8 + street.salt, 1.4)

    colour = street.asphalt * (1 + 0.22 * rough + 0.3 * patches)[..., None]
    paint = 0.62 * _markings(x, z, wide, deep, street) * (1 + 0.25 * np.clip(rough, -1, 0))
    colour += (np.array([1.0, 0.98, 0.92], np.float32) - colour) * paint[..., None]

    slab = street.slabs * (1 + 0.12 * rough + 0.14 * patches)[..., None]
    joints = np.maximum(stripes(aside, 0.7, 0.06, wide), stripes(z, 0.7, 0.06, deep)) * np.clip(1.2 - deep, 0, 1)
    slab *= (1 - 0.35 * joints)[..., None]
    slab *= (1 + 0.4 * stripe(aside - street.road - 0.1, 0.1, wide))[..., None]  # the kerb is lighter

    grass = street.grass * (1 + 0.6 * noise(x * 11, z * 11, 0.5) + 0.35 * patches)[..., None]
    on_slab = np.clip((aside - street.road) / wide + 0.5, 0, 1)[..., None]
    on_grass = np.clip((aside - street.pavement) / wide + 0.5, 0, 1)[..., None]
    colour = colour + (slab - colour) * on_slab
    colour = colour + (grass - colour) * on_grass

    lit = _sunlit(x, z, light, street)
    contact = _contact(x, z, street)
    shade = light.ambient * (1 - 0.55 * contact[..., None]) + light.sun_colour * light.sun[1] * lit[..., None]
    canvas.image[first:] = in_air(colour * shade, z, light)
    label = np.full(z.shape, Label.ROAD, np.uint8)
    label[aside >= street.road] = Label.PAVEMENT
    label[aside >= street.pavement] = Label.VEGETATION
    canvas.mask[first:] = label


def _markings(x: Array, z: Array, wide: Array, deep: Array, street: Street) -> Array:
    """Share 0-1 of each pixel that white paint covers."""
    paint = np.zeros_like(x)
    if street.centre_line:
        paint = stripe(np.abs(x), 0.08, wide) * stripes(z + street.salt, 6.0, 0.5, deep)
    if street.edge_line:
        paint = np.maximum(paint, stripe(np.abs(np.abs(x) - street.road + 0.35), 0.07, wide))
    if street.crossing > 0:
        across = stripes(x + 0.5, 1.0, 0.5, wide) * (np.abs(x) < street.road - 0.3)
        along = stripe(np.abs(z - street.crossing - 1.5), 1.5, deep)
        paint = np.where(along > 0, across * along, paint)
    return paint


def _sunlit(x: Array, z: Array, light: Light, street: Street) -> Array:
    """1 in the sun, 0 in the shadow of a building or thing, for points on the ground."""
    lit = 1 - _in_shadow_of_wall(x, np.zeros_like(z), z, light, street)
    reach = light.sun / max(float(light.sun[1]), 0.22)
    for thing in street.things:
        if thing.kind == "tree":
            low, high, radius = 0.6 * thing.height, 0.75 * thing.height, thing.radius
        else:
            low, high, radius = 0.0, thing.height * 0.8, thing.radius * 0.9
        start, end = ((thing.x - reach[0] * y, thing.z - reach[2] * y) for y in (low, high))
        margin = radius * 1.5 + (1.5 if thing.kind == "car" else 0)
        rows = _rows_between(z[:, 0], min(start[1], end[1]) - margin, max(start[1], end[1]) + margin)
        if rows.start < rows.stop:
            away = _from_segment(x[rows], z[rows], start, end, 2.4 if thing.kind == "car" else 1.0)
            if thing.kind == "tree":
                away = away + 0.35 * radius * noise(x[rows] * 7 + thing.x, z[rows] * 7, 0.8)
            lit[rows] *= np.clip((away / radius - 0.85) * 4, 0, 1)
    return lit


def _contact(x: Array, z: Array, street: Street) -> Array:
    """Soft darkness, 0 to about 1, under cars and at the foot of walls, where little skylight arrives."""
    dark = 0.6 * np.clip(1 - np.abs(street.walls - np.abs(x)) / 0.8, 0, 1)
    for thing in street.things:
        if thing.kind == "car":
            rows = _rows_between(z[:, 0], thing.z - 1, thing.z + 5.5)
            away = np.hypot((x[rows] - thing.x) / 1.15, (z[rows] - thing.z - 2.1) / 2.5)
            dark[rows] = np.maximum(dark[rows], np.clip((1.15 - away) * 4, 0, 1.5))
    return dark


def _rows_between(z: Array, near: float, far: float) -> slice:
    """The rows whose distances `z`, which decrease from top to bottom, are from `near` to `far`."""
    inside = np.flatnonzero((z >= near) & (z <= far))
    return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)


def _from_segment(x: Array, z: Array, a: tuple[float, float], b: tuple[float, float], stretch: float) -> Array:
    """Distance of ground points to a segment; `stretch` > 1 lengthens the shape along z."""
    dx, dz = b[0] - a[0], (b[1] - a[1]) / stretch
    px, pz = x - a[0], (z - a[1] - (2.1 if stretch > 1 else 0)) / stretch  # a car's z is its near end
    t = np.clip((px * dx + pz * dz) / max(dx * dx + dz * dz, 1e-6), 0, 1)
    return np.hypot(px - t * dx, pz - t * dz)


def _in_shadow_of_wall(x: Array, y: Array, z: Array, light: Light, street: Street) -> Array:
    """1 if the ray from a point to the sun meets a facade on the sun's side of the street."""
    sun_x = float(light.sun[0])
    if abs(sun_x) < 0.05:
        return np.zeros_like(z)
    side = 1 if sun_x > 0 else -1
    row = [b for b in street.buildings if b.side == side]
    t = (side * street.walls - x) / sun_x
    heights = np.array([0.0, *(h for b in row for h in (b.height, 0.0))], np.float32)
    edges = np.array([e for b in row for e in (b.near, b.far)], np.float32)
    height = heights[np.searchsorted(edges, z + t * light.sun[2])]
    shadow: Array = np.clip((height - y - t * light.sun[1]) * 3 + 0.5, 0, 1) * (t > 0)
    return shadow


def paint_buildings(canvas: Canvas, camera: Camera, light: Light, street: Street) -> None:
    """Each building from far to near: first the end wall that faces the camera, then the wall along the street."""
    for building in sorted(street.buildings, key=lambda b: -b.near):
        if building.near > 1.0:
            _paint_end_wall(canvas, camera, light, street, building)
        _paint_street_wall(canvas, camera, light, street, building)


def _paint_end_wall(canvas: Canvas, camera: Camera, light: Light, street: Street, building: Building) -> None:
    inner, outer = building.side * street.walls, building.side * (street.walls + 12)
    left, top = camera.project(min(inner, outer), building.height, building.near)
    right, bottom = camera.project(max(inner, outer), 0.0, building.near)
    box = canvas.box(float(left), float(top), float(right), float(bottom))
    row, col = _pixels(box)
    z = np.full(col.shape, building.near, np.float32)
    along = np.abs((col - camera.vanishing_col) * z / camera.focal_px + camera.x - inner)
    up = camera.y - (row - camera.horizon_row) * z / camera.focal_px
    _paint_wall(canvas, box, light, building, along, up, z, z / camera.focal_px, light.on((0, 0, -1)))


def _paint_street_wall(canvas: Canvas, camera: Camera, light: Light, street: Street, building: Building) -> None:
    x, near = building.side * street.walls, max(building.near, 0.5)
    if building.far < 1.0:
        return
    cols = sorted(float(camera.project(x, 0, z)[0]) for z in (near, building.far))
    top = min(float(camera.project(x, building.height, z)[1]) for z in (near, building.far))
    box = canvas.box(cols[0], top, cols[1], float(camera.project(x, 0, near)[1]) + 1)
    row, col = _pixels(box)
    bearing = col - camera.vanishing_col
    z = camera.focal_px * (x - camera.x) / np.where(np.abs(bearing) < 0.25, 0.25 * building.side, bearing)
    up = camera.y - (row - camera.horizon_row) * z / camera.focal_px
    normal = (-float(building.side), 0.0, 0.0)
    shade = light.ambient * 0.85 + np.zeros((*z.shape, 3), np.float32)
    facing = max(0.0, float(light.sun @ normal))
    if facing > 0:
        lit = 1 - _in_shadow_of_wall(np.full_like(z, x), up, z, light, street)
        shade = shade + light.sun_colour * facing * lit[..., None]
    pixel = z * z / (camera.focal_px * abs(x - camera.x))
    _paint_wall(canvas, box, light, building, z - building.near, up, z, pixel, shade)


def _pixels(box: tuple[slice, slice]) -> tuple[Array, Array]:
    """Rows and columns of the pixels' centres."""
    row, col = np.mgrid[box].astype(np.float32)
    return row + 0.5, col + 0.5


def _paint_wall(
    canvas: Canvas, box: tuple[slice, slice], light: Light, building: Building,
    along: Array, up: Array, z: Array, pixel: Array, shade: Array,
) -> None:  # fmt: skip
    """`along` and `up` are metres on the wall; `pixel` is the metres along the wall per pixel."""
    if along.size == 0:
        return
    tall = z * (pixel / np.maximum(pixel, 1e-6)) / 220  # metres up the wall per pixel, nearly
    period_u, share_u, period_v, share_v = building.window
    storey = up - (3.4 if building.shop else 0.4)
    colour = building.wall * (1 + 0.16 * noise(along * 6 + building.salt, up * 6, 0.9))[..., None]
    colour *= np.clip(0.7 + 0.2 * up, 0.7, 1)[..., None]  # darker near the ground: dirt, and little skylight
    i, j = np.floor(along / period_u), np.floor(storey / period_v)
    chance = hashed(i, j, building.salt)
    pane = stripes(along, period_u, share_u, pixel) * stripes(storey, period_v, share_v, tall)
    pane *= (storey > 0) & (up < building.height - 0.7)
    frame = stripes(along, period_u, share_u + 0.12, pixel) * stripes(storey, period_v, share_v + 0.1, tall)
    frame *= (storey > 0) & (up < building.height - 0.6)
    colour = colour * (1 + 0.45 * (frame - pane))[..., None]
    colour *= (1 - 0.35 * stripe(np.abs(up - building.height + 0.35), 0.18, tall))[..., None]  # cornice
    colour = colour * shade
    glass = light.sky_low * (0.1 + 0.3 * chance)[..., None]
    glow = (chance > 1 - 0.45 * light.evening) * (0.3 + 0.5 * light.evening)
    glass = glass + np.array([1.0, 0.72, 0.36], np.float32) * glow[..., None]
    colour = colour + (glass - colour) * (0.92 * pane)[..., None]
    if building.shop:
        window = stripes(along, 4.2, 0.82, pixel) * stripe(np.abs(up - 1.6), 1.1, tall)
        inside = light.sky_low * 0.16 + np.array([0.75, 0.6, 0.4], np.float32) * (0.1 + 0.5 * light.evening)
        colour = colour + (inside - colour) * window[..., None]
        awning = stripe(np.abs(up - 3.0), 0.28, tall)[..., None]
        hue = 0.12 + 0.5 * hashed(np.floor(along / 8.4)[..., None], np.arange(3, dtype=np.float32), building.salt)
        colour = colour + (hue * shade - colour) * awning
    alpha = np.clip((building.height - up) / tall + 0.5, 0, 1) * np.clip(up / tall + 0.5, 0, 1)
    canvas.paint(box, in_air(colour, z, light), alpha, Label.BUILDING)
