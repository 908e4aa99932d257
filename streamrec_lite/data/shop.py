"""The vocabulary of the playground: departments, categories, projects, brands, and the items' text.

Every department has six categories and three projects. A project is an ordered list of five of the
categories. The projects of one department share categories in different orders, so that the last
item alone does not tell which project a user follows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd


class Department(NamedTuple):
    """A department of the shop, with the words for its items' titles and descriptions."""

    name: str
    nouns: dict[str, str]  # category name -> noun for its items
    projects: dict[str, tuple[int, ...]]  # project name -> the categories of its stages, in order
    attributes: tuple[str, ...]
    purposes: tuple[str, ...]


STAGES_PER_PROJECT = 5
CATEGORIES_PER_DEPARTMENT = 6
PROJECTS_PER_DEPARTMENT = 3
MAX_DEPARTMENTS = 100

DEPARTMENTS = (
    Department(
        "Music",
        {
            "Electric Guitars": "electric guitar",
            "Amplifiers": "amplifier",
            "Instrument Cables": "instrument cable",
            "Guitar Strings": "string set",
            "Effects Pedals": "effects pedal",
            "Microphones": "microphone",
        },
        {
            "start on electric guitar": (0, 1, 2, 3, 4),
            "record at home": (5, 2, 4, 1, 3),
            "play on stage": (4, 2, 0, 5, 1),
        },
        ("Walnut", "Midnight Black", "Sunburst", "Vintage", "Compact", "Road-Ready", "Studio", "Cherry Red"),
        ("first chords", "late-night practice", "small stages", "clean recordings"),
    ),
    Department(
        "Kitchen",
        {
            "Espresso Machines": "espresso machine",
            "Coffee Grinders": "coffee grinder",
            "Milk Pitchers": "milk pitcher",
            "Cups and Glasses": "cup set",
            "Kitchen Scales": "kitchen scale",
            "Baking Pans": "baking pan",
        },
        {
            "become a home barista": (0, 1, 2, 3, 4),
            "bake every weekend": (5, 4, 3, 1, 2),
            "furnish a first kitchen": (3, 5, 1, 0, 4),
        },
        ("Brushed Steel", "Matte White", "Copper", "Slim", "Family-Size", "Ceramic", "Quiet", "Sage Green"),
        ("quick breakfasts", "slow Sundays", "small counters", "guests who stay late"),
    ),
    Department(
        "Garden",
        {
            "Raised Beds": "raised bed",
            "Potting Soil": "potting soil",
            "Seeds": "seed mix",
            "Hand Tools": "hand trowel",
            "Watering": "watering can",
            "Plant Supports": "plant trellis",
        },
        {
            "grow vegetables": (0, 1, 2, 3, 4),
            "plant a balcony": (1, 4, 2, 5, 0),
            "train climbing plants": (5, 3, 1, 4, 2),
        },
        (
            "Cedar",
            "Galvanised",
            "Organic",
            "Folding",
            "Terracotta",
            "Heirloom",
            "Weatherproof",
            "Moss Green",
        ),
        ("short seasons", "sunny balconies", "heavy clay", "first-time growers"),
    ),
    Department(
        "Cycling",
        {
            "Bicycles": "bicycle",
            "Helmets": "helmet",
            "Bike Lights": "bike light",
            "Locks": "bike lock",
            "Panniers": "pannier",
            "Pumps": "floor pump",
        },
        {
            "commute by bike": (0, 1, 2, 3, 4),
            "tour for a week": (4, 5, 2, 0, 1),
            "keep a bike running": (5, 3, 1, 2, 0),
        },
        (
            "Reflective",
            "Ultralight",
            "Urban",
            "Waterproof",
            "Graphite",
            "Touring",
            "Steel Blue",
            "Clip-On",
        ),
        ("rainy commutes", "long climbs", "city streets", "gravel tracks"),
    ),
    Department(
        "Photography",
        {
            "Cameras": "mirrorless camera",
            "Lenses": "prime lens",
            "Tripods": "tripod",
            "Memory Cards": "memory card",
            "Camera Bags": "camera bag",
            "Photo Lamps": "softbox lamp",
        },
        {
            "learn photography": (0, 1, 2, 3, 4),
            "set up a portrait corner": (5, 2, 1, 0, 3),
            "photograph on the road": (4, 3, 0, 2, 1),
        },
        ("Carbon", "Travel", "Professional", "Fast", "Leather", "Silver", "All-Weather", "Beginner"),
        ("family portraits", "night skies", "street scenes", "product pictures"),
    ),
    Department(
        "Painting",
        {
            "Acrylic Paint": "acrylic paint set",
            "Brushes": "brush set",
            "Canvases": "canvas pack",
            "Easels": "easel",
            "Varnish": "varnish",
            "Sketchbooks": "sketchbook",
        },
        {
            "paint in acrylics": (0, 1, 2, 3, 4),
            "draw, then paint": (5, 1, 0, 2, 3),
            "prepare an exhibition": (2, 4, 3, 0, 5),
        },
        ("Student", "Artist-Grade", "Beechwood", "Satin", "Vivid", "Pocket", "Fine-Tip", "Large-Format"),
        ("plein-air days", "crowded desks", "bold colour", "patient layers"),
    ),
    Department(
        "Camping",
        {
            "Tents": "tent",
            "Sleeping Bags": "sleeping bag",
            "Camp Stoves": "camp stove",
            "Lanterns": "lantern",
            "Backpacks": "backpack",
            "Water Filters": "water filter",
        },
        {
            "spend a first night out": (0, 1, 2, 3, 4),
            "hike for days": (4, 5, 1, 2, 0),
            "cook outdoors": (2, 3, 5, 4, 1),
        },
        ("Two-Person", "Alpine", "Ember Orange", "Packable", "Four-Season", "Rugged", "Mesh", "Trail"),
        ("wet weekends", "thin air", "family trips", "a night under stars"),
    ),
    Department(
        "Aquarium",
        {
            "Fish Tanks": "fish tank",
            "Tank Filters": "tank filter",
            "Gravel": "gravel",
            "Aquatic Plants": "aquatic plant",
            "Fish Food": "fish food",
            "Tank Heaters": "tank heater",
        },
        {
            "set up a first tank": (0, 1, 2, 3, 4),
            "keep tropical fish": (5, 1, 4, 3, 0),
            "plant an aquascape": (3, 2, 5, 0, 1),
        },
        ("Nano", "Silent", "Tropical", "Natural", "Clear-View", "Coldwater", "Black Quartz", "Slow-Release"),
        ("lively schools", "calm corners", "soft water", "curious children"),
    ),
    Department(
        "Woodworking",
        {
            "Hand Saws": "hand saw",
            "Clamps": "clamp set",
            "Chisels": "chisel",
            "Wood Glue": "wood glue",
            "Sandpaper": "sandpaper pack",
            "Wood Finish": "wood finish",
        },
        {
            "build a bookshelf": (0, 1, 3, 4, 5),
            "carve spoons": (2, 4, 5, 0, 3),
            "restore old furniture": (4, 3, 1, 5, 2),
        },
        ("Japanese", "Heavy-Duty", "Fine-Grit", "Quick-Set", "Hardwood", "Precision", "Matte", "Workshop"),
        ("tight joints", "rough timber", "weekend builds", "old chairs"),
    ),
    Department(
        "Home Office",
        {
            "Desks": "desk",
            "Office Chairs": "office chair",
            "Monitors": "monitor",
            "Keyboards": "keyboard",
            "Desk Lamps": "desk lamp",
            "Notebooks": "notebook",
        },
        {
            "work from home": (0, 1, 2, 3, 4),
            "study for exams": (5, 4, 3, 0, 1),
            "sit without pain": (1, 3, 0, 4, 2),
        },
        ("Adjustable", "Ergonomic", "Oak", "Wireless", "Minimal", "Curved", "Warm-Light", "Dotted"),
        ("long calls", "deep focus", "narrow rooms", "tidy minds"),
    ),
)

BRANDS = (
    "Aldervale", "Brixo", "Calderan", "Dunmarrow", "Estuary", "Fennick", "Galloway", "Harrowin",
    "Ivorel", "Juniper", "Kestrelo", "Lumara", "Marrowby", "Norvane", "Oakenfell", "Pellham",
    "Quillon", "Rookwell", "Sandrake", "Tavisto", "Umberlin", "Verrano", "Wexcombe", "Yarrowin",
)  # fmt: skip

_STEMS = ("Vel", "Tor", "Mar", "Zen", "Kor", "Lim", "Nar", "Pol", "Ras", "Sol")
_ENDS = ("dane", "wick", "more", "tica", "lume", "gard", "nest", "ford", "cress", "vale")
_KINDS = ("Frames", "Panels", "Modules", "Fittings", "Covers", "Kits")


def departments(count: int) -> list[Department]:
    """The first ``count`` departments: hand-written ones, then generated ones with the same structure."""
    made = list(DEPARTMENTS[:count])
    for number in range(count - len(made)):
        word = _STEMS[number % 10] + _ENDS[number // 10]
        nouns = {f"{word} {kind}": f"{word} {kind[:-1].lower()}" for kind in _KINDS}
        template = DEPARTMENTS[number % len(DEPARTMENTS)]
        projects = {f"{word} project {i + 1}": order for i, order in enumerate(template.projects.values())}
        made.append(Department(word, nouns, projects, template.attributes, template.purposes))
    return made


def item_frame(
    departments: list[Department], category: np.ndarray, brand: np.ndarray, seed: int
) -> pd.DataFrame:
    """Readable text for N items: title, brand, categories, description, one row per item.

    Args:
        departments: the departments of the shop.
        category: (N,) index into the categories of all departments, in order.
        brand: (N,) index into ``BRANDS``.
        seed: of the random choice of words.
    """
    rng = np.random.default_rng(seed)
    choices = rng.integers(0, 1 << 30, size=(3, len(category))).tolist()
    names = [(name, noun, home) for home in departments for name, noun in home.nouns.items()]
    rows = []
    for c, b, x, y, z in zip(category.tolist(), brand.tolist(), *choices, strict=True):
        name, noun, department = names[c]
        first = department.attributes[x % len(department.attributes)]
        second = department.attributes[y % len(department.attributes)]
        purpose = department.purposes[z % len(department.purposes)]
        maker = BRANDS[b]
        extra = "" if first == second else f" {second} version."
        rows.append(
            (
                f"{maker} {first} {noun.title()}",
                maker,
                f"{department.name},{name}",
                f"{first} {noun} by {maker}, made for {purpose}.{extra}",
            )
        )
    return pd.DataFrame(rows, columns=["title", "brand", "categories", "description"], dtype=str)
