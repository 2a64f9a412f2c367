"""Words by which captions call the objects of COCO's 80 categories, and words that only look so.
Written by hand for this project.

A row lists the words of one category, divided by commas. The plural is formed by rule, or given
after a stroke (man/men); a word with nothing after its stroke (broccoli/) has none, one with
nothing before it (/cattle) is a plural. A word may stand in several rows (board): it then counts
where only one of those categories is in the image.
"""

from __future__ import annotations

import re
from functools import cache

WORDS = {
    "person": """person/people, /persons, man/men, woman/women, boy, girl, child/children, kid, lady, guy, gentleman/gentlemen, toddler,
        infant, baby, baby boy, baby girl, mother, mom, father, dad, son, daughter, grandmother, grandfather, /parents, husband, wife/wives,
        bride, groom, /couple, /family, friend, someone/, somebody/, human, individual, adult, teenager, /teens, student, teacher, worker,
        employee, player, baseball player, tennis player, soccer player, football player, basketball player, batter, baseball batter,
        catcher, umpire, baseball pitcher, pitcher, referee, goalie, athlete, teammate, skier, snowboarder, surfer, skateboarder, skater,
        cyclist, bicyclist, biker, motorcyclist, bike rider, horse rider, motorcycle rider, horseback rider, rider, jockey, runner, swimmer,
        golfer, hiker, climber, paraglider, sailor, fisherman/fishermen, pedestrian, passenger, driver, bus driver, truck driver, taxi
        driver, train conductor, conductor, pilot, chef, cook, baker, waiter, waitress, bartender, barista, cashier, vendor, customer,
        shopper, spectator, onlooker, bystander, tourist, visitor, commuter, traveler, traveller, officer, police officer,
        policeman/policemen, cop, soldier, firefighter, fireman/firemen, fire fighter, doctor, nurse, dentist, farmer, cowboy,
        businessman/businessmen, businesswoman/businesswomen, musician, guitarist, performer, clown, photographer, /males, /females""",
    "bicycle": "bicycle, bike, mountain bike, road bike, tandem bike, bmx bike, tricycle",
    "car": """car, automobile, sedan, suv, minivan, van, mini van, taxi, cab, taxi cab, police car, sports car, race car, station wagon,
        convertible, jeep, hatchback, patrol car""",
    "motorcycle": """motorcycle, motor cycle, motorbike, motor bike, bike, dirt bike, scooter, motor scooter, moped, vespa, police
        motorcycle""",
    "airplane": """airplane, air plane, plane, aeroplane, aircraft/aircraft, airliner, jet, jet plane, jetliner, jet liner, fighter jet,
        biplane, bi plane, jumbo jet, passenger jet, passenger plane, seaplane, sea plane, propeller plane, jet airplane, warplane""",
    "bus": """bus/buses, /busses, double decker, double decker bus/double decker buses, school bus/school buses, tour bus/tour buses, city
        bus/city buses, passenger bus/passenger buses, transit bus/transit buses, minibus, trolley, shuttle bus/shuttle buses""",
    "train": """train, locomotive, steam engine, tram, streetcar, street car, trolley, trolley car, cable car, train engine, train car, rail
        car, railcar, freight train, passenger train, commuter train, subway train, steam train, subway car, monorail, box car""",
    "truck": """truck, lorry, pickup truck, pick up truck, pickup, fire truck, firetruck, fire engine, dump truck, tow truck, garbage truck,
        food truck, delivery truck, semi truck, semi, tractor trailer, trash truck, box truck, cargo truck, ice cream truck""",
    "boat": """boat, ship, sailboat, sail boat, canoe, kayak, ferry, ferry boat, yacht, rowboat, row boat, speedboat, speed boat, motorboat,
        motor boat, tugboat, tug boat, fishing boat, house boat, houseboat, raft, gondola, barge, dinghy, catamaran, cruise ship""",
    "traffic light": "traffic light, traffic signal, stoplight, stop light, signal light",
    "fire hydrant": "fire hydrant, hydrant, fire plug",
    "stop sign": "stop sign, stopsign",
    "parking meter": "parking meter, meter",
    "bench": "bench, park bench/park benches",
    "bird": """bird, seagull, sea gull, gull, pigeon, duck, duckling, goose/geese, swan, parrot, parakeet, owl, eagle, hawk, crow, raven,
        dove, pelican, heron, flamingo, peacock, ostrich/ostriches, rooster, hen, chicken, chick, sparrow, robin, finch, hummingbird,
        cockatoo, turkey, stork, egret, falcon, vulture, penguin, woodpecker, blue jay""",
    "cat": "cat, kitten, kitty, kitty cat, tabby, tabby cat, house cat, feline, tomcat",
    "dog": """dog, puppy, pup, doggy, doggie, canine, hound, poodle, bulldog, terrier, corgi, beagle, chihuahua, dachshund, labrador, golden
        retriever, retriever, german shepherd, dalmatian, sheepdog, sheep dog, husky, pug, pit bull, border collie, collie""",
    "horse": "horse, pony, foal, colt, stallion, mare, race horse, racehorse",
    "sheep": "sheep/sheep, lamb, ram, ewe, baby sheep/baby sheep",
    "cow": (
        "cow, /cattle, calf/calves, bull, ox/oxen, steer, heifer, bovine, longhorn, dairy "
        "cow, baby cow"
    ),
    "elephant": "elephant, calf/calves, baby elephant, elephant calf/elephant calves",
    "bear": (
        "bear, polar bear, brown bear, black bear, grizzly, grizzly bear, bear cub, cub, "
        "panda, panda bear, baby bear"
    ),
    "zebra": "zebra, baby zebra",
    "giraffe": "giraffe, calf/calves, baby giraffe",
    "backpack": "backpack, back pack, rucksack, knapsack, book bag, bookbag, school bag, bag",
    "umbrella": "umbrella, parasol, beach umbrella, patio umbrella",
    "handbag": "handbag, hand bag, purse, pocketbook, tote, tote bag, shoulder bag, bag",
    "tie": "tie, necktie, neck tie, bow tie, bowtie",
    "suitcase": (
        "suitcase, suit case, /luggage, /baggage, luggage bag, briefcase, piece of "
        "luggage/pieces of luggage, carry on bag, bag"
    ),
    "frisbee": "frisbee, frizbee, flying disc, disc, disk",
    "skis": "/skis, ski/, /snow skis, pair of skis/pairs of skis",
    "snowboard": "snowboard, snow board, board",
    "sports ball": """sports ball, ball, soccer ball, tennis ball, baseball, base ball, softball, basketball, football, volleyball, beach
        ball, soccerball, basket ball, volley ball, rugby ball, golf ball""",
    "kite": "kite, box kite, parasail, para sail",
    "baseball bat": "baseball bat, bat, softball bat",
    "baseball glove": (
        "baseball glove, baseball mitt, catcher's mitt, catchers mitt, mitt, glove, catcher's glove"
    ),
    "skateboard": "skateboard, skate board, longboard, long board, board",
    "surfboard": (
        "surfboard, surf board, boogie board, body board, bodyboard, paddle board, "
        "paddleboard, board"
    ),
    "tennis racket": "tennis racket, racket, tennis racquet, racquet, racquette, tennis racquette",
    "bottle": (
        "bottle, wine bottle, water bottle, beer bottle, bottle of wine/bottles of wine, "
        "bottle of water/bottles of water"
    ),
    "wine glass": """wine glass, wineglass, champagne glass, champagne flute, goblet, glass of wine/glasses of wine, glass of red
        wine/glasses of red wine, glass of white wine/glasses of white wine""",
    "cup": (
        "cup, mug, teacup, tea cup, coffee cup, coffee mug, paper cup, plastic cup, "
        "tumbler, beer mug"
    ),
    "fork": "fork",
    "knife": (
        "knife/knives, butter knife/butter knives, steak knife/steak knives, cake "
        "knife/cake knives, bread knife/bread knives"
    ),
    "spoon": "spoon, teaspoon, tablespoon, soup spoon, wooden spoon",
    "bowl": (
        "bowl, soup bowl, salad bowl, mixing bowl, dog bowl, cereal bowl, fruit bowl, sugar bowl"
    ),
    "banana": "banana, bunch of bananas/bunches of bananas, plantain",
    "apple": "apple, apple slice, slice of apple/slices of apple",
    "sandwich": (
        "sandwich, burger, hamburger, cheeseburger, sub, panini, hoagie, grilled cheese, "
        "ham sandwich, submarine sandwich"
    ),
    "orange": """orange, tangerine, mandarin, clementine, orange slice, orange half/orange halves, orange wedge, orange segment, slice of
        orange/slices of orange, mandarin orange""",
    "broccoli": "broccoli/, piece of broccoli/pieces of broccoli, broccoli floret",
    "carrot": "carrot, baby carrot, carrot stick, carrot slice",
    "hot dog": "hot dog, hotdog, frankfurter, chili dog, corn dog",
    "pizza": (
        "pizza, pizza pie, slice of pizza/slices of pizza, pizza slice, piece of "
        "pizza/pieces of pizza, cheese pizza, pepperoni pizza"
    ),
    "donut": "donut, doughnut, dough nut",
    "cake": """cake, cupcake, cup cake, birthday cake, wedding cake, cheesecake, cheese cake, carrot cake, chocolate cake, layer cake, piece
        of cake/pieces of cake, slice of cake/slices of cake, banana cake, apple cake, orange cake""",
    "chair": """chair, armchair, arm chair, rocking chair, lawn chair, beach chair, folding chair, office chair, desk chair, dining chair,
        computer chair, recliner, easy chair, lounge chair, high chair, deck chair""",
    "couch": "couch/couches, sofa, loveseat, love seat, futon, settee",
    "potted plant": "potted plant, plant, house plant, houseplant, potted flower, potted tree",
    "bed": (
        "bed, bunk bed, king bed, queen bed, twin bed, hospital bed, king size bed, queen "
        "size bed, crib, sofa bed, futon"
    ),
    "dining table": """dining table, dining room table, table, kitchen table, coffee table, picnic table, dinner table, wooden table,
        conference table, restaurant table, lunch table, breakfast table""",
    "toilet": "toilet, commode, urinal, toilet bowl, porcelain toilet",
    "tv": """tv, television, tv set, television set, flat screen tv, flat screen television, tv screen, television screen, flat screen,
        monitor, computer monitor, computer screen, desktop monitor, computer""",
    "laptop": (
        "laptop, laptop computer, notebook computer, lap top, lap top computer, macbook, "
        "apple laptop, computer"
    ),
    "mouse": "mouse/mice, computer mouse/computer mice, wireless mouse/wireless mice",
    "remote": """remote, remote control, remote controller, tv remote, television remote, wii remote, wii controller, wiimote, game
        controller, video game controller, nintendo wii controller, nintendo wii remote, controller""",
    "keyboard": "keyboard, computer keyboard, key board, laptop keyboard",
    "cell phone": """cell phone, phone, cellphone, mobile phone, smartphone, smart phone, iphone, flip phone, cellular phone, cellular
        telephone""",
    "microwave": "microwave, microwave oven",
    "oven": (
        "oven, stove, stovetop, stove top, stove top oven, range oven, gas stove, pizza "
        "oven, brick oven, gas range, cooker"
    ),
    "toaster": "toaster",
    "sink": "sink, bathroom sink, kitchen sink, wash basin, washbasin, basin, pedestal sink",
    "refrigerator": "refrigerator, fridge, freezer, refrigerator freezer, mini fridge, ice box",
    "book": "book, novel, textbook, comic book, cook book, cookbook, paperback",
    "clock": (
        "clock, alarm clock, wall clock, clock face, grandfather clock, street clock, cuckoo clock"
    ),
    "vase": "vase, flower vase, glass vase",
    "scissors": "/scissors, pair of scissors/pairs of scissors, /shears",
    "teddy bear": """teddy bear, teddy, teddybear, stuffed bear, stuffed animal, toy bear, stuffed toy, plush toy, stuffed teddy bear, plush
        bear""",
    "hair drier": "hair drier, hair dryer, hairdryer, blow dryer, blow drier, hairdrier, blowdryer",
    "toothbrush": (
        "toothbrush/toothbrushes, tooth brush/tooth brushes, electric toothbrush/electric "
        "toothbrushes"
    ),
}

# What other datasets and detectors call the same categories.
SAME = {
    "aeroplane": "airplane",
    "cellphone": "cell phone",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}

# Expressions that hold a word of a category and mean nothing of it: what may follow the word (car
# seat) …
LEADING = {
    "adult": "elephant giraffe zebra bear cow sheep bird horse cat dog",
    "apple": "butter cider computer juice logo orchard pie product sauce store tree",
    "baby": "animal bird bottle carriage cat chick crib dog duck goat horse stroller",
    "ball": "cap field game park player room",
    "banana": "boat bread leaf muffin peel plant split tree",
    "baseball": "cap diamond field game hat park stadium team uniform",
    "bed": "cover frame head linen post room sheet side skirt spread",
    "bicycle": "helmet lane path rack shop wheel",
    "bike": "helmet lane path rack shop trail",
    "bird": "bath cage feeder house nest seed",
    "board": "game room walk",
    "boat": "dock launch ramp yard",
    "book": "case end fair mark rack shelf store",
    "bottle": "cage cap opener",
    "bowling": "ball alley",
    "bus": "depot lane shelter station stop terminal",
    "cake": "batter decorator mix pan plate shop stand topper",
    "car": "dashboard dealership door hood lot mirror park seat show wash window",
    "carrot": "juice soup top",
    "cat": "bed fish food house litter nap scratcher tail toy tree",
    "cattle": "car guard",
    "cell": "tower",
    "chair": "lift",
    "chicken": "breast leg nugget salad sandwich soup wing wire",
    "child's": "toy",
    "clock": "building radio tower work",
    "computer": "bag case cord desk equipment game lab programmer room speaker table tower",
    "couch": "cushion",
    "couple": "of",
    "cow": "bell boy hide print",
    "cub": "scout",
    "cup": "board holder",
    "disc": "golf player",
    "disk": "drive golf",
    "dog": "bed cage collar crate food house leash park show toy",
    "donut": "box hole maker shop",
    "doughnut": "box hole maker shop",
    "driver": "side seat",
    "driver's": "side seat",
    "duck": "tape",
    "family": "room",
    "fork": "lift",
    "freezer": "bag",
    "fridge": "magnet",
    "glove": "box compartment",
    "horse": "carriage drawn race shoe show stable trailer",
    "kite": "boarder boarding festival string surfer tail",
    "lady": "bug",
    "lamb": "chop",
    "laptop": "bag case desk screen stand",
    "man": "hole made",
    "men's": "bathroom restroom room",
    "monitor": "lizard",
    "motorcycle": "helmet rally show",
    "mouse": "pad toy trap",
    "orange": "chicken color cone juice peel sauce soda tree",
    "oven": "door mitt",
    "passenger": "seat side",
    "phone": "book booth box call case charger cord holder line number pole store",
    "pitcher": "of",
    "pizza": (
        "box crust cutter delivery dough hut maker oven pan parlor peel place restaurant "
        "sauce shop stone tray"
    ),
    "plane": "ticket",
    "plant": "holder leaf life pot stand",
    "player": "piano",
    "refrigerator": "door magnet",
    "sandwich": "maker shop",
    "ski": """area boot course equipment gear goggle hill instructor jacket jump lift lodge mask mountain outfit path patrol pole race
        resort run slope suit track trail""",
    "sofa": "cushion",
    "stove": "pipe",
    "table": "cloth lamp leg runner saw setting tennis top ware",
    "television": "cabinet program show stand station",
    "tie": "down dye dyed rack",
    "toilet": "brush cleaner cover lid paper plunger roll room seat stall tank tissue",
    "train": "bridge crossing depot platform set station stop terminal track tunnel yard",
    "truck": "bed stop",
    "turkey": "breast sandwich",
    "tv": "antenna cabinet dinner show stand station tower tray",
    "umbrella": "stand",
    "women's": "bathroom restroom room",
    "zebra": "crossing print stripe striped",
}
# … what may stand before it (toy horse) …
TRAILING = {
    "animal": "baby",
    "apple": "adam's big",
    "bag": "air bean garbage grocery paper plastic punching shopping sleeping tea trash",
    "ball": "bowling christmas cotton disco meat rice",
    "bear": "care chicago gummy",
    "bed": "cat dog flower pet river",
    "bench": "work",
    "board": "bulletin chalk circuit cutting dart diving head ironing peg score sign wake white",
    "boat": "banana gravy",
    "book": "check coloring guest phone",
    "bowl": "super",
    "cake": "crab fish rice",
    "car": "cattle side",
    "cat": "stuffed toy",
    "chair": "electric wheel",
    "chicken": "fried grilled roasted",
    "computer": "apple",
    "cow": "stuffed toy",
    "cup": "measuring suction world",
    "dog": "prairie stuffed toy",
    "duck": "rubber toy",
    "elephant": "stuffed toy",
    "fork": "tuning",
    "giraffe": "stuffed toy",
    "glove": "boxing leather oven rubber ski snow winter",
    "horse": "hobby rocking saw sea stuffed toy",
    "keyboard": "musical piano",
    "monitor": "heart",
    "mouse": "mickey minnie stuffed toy",
    "oven": "dutch toaster",
    "phone": "desk pay",
    "plant": "aquatic power water",
    "player": "cd disc dvd music record vcr",
    "scooter": "kick",
    "ski": "jet water",
    "table": "billiard changing drafting foosball hockey massage night operating pool tennis water",
    "tie": "railroad zip",
    "turkey": "roast roasted",
    "zebra": "stuffed toy",
}
# … and the rest.
LONGER = """bags of chips, bean bag chair, bed and breakfast, bedside table, cell phone case, cell phone tower, dry erase board, fork in the
    road, hot water bottle, mother and baby, mother and her baby, mother and her calf, ping pong table, remote control boat, remote control
    car, remote control plane, remote control toy, remote control truck, table tennis player, tennis player's bag, water skier"""


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that are colours, too, or go before another noun ("orange cat", "baby elephant"), and words
# that are verbs, too ("a man skis").
ATTRIBUTES = _set(
    """
    adult baby baseball basketball football human infant mom mother orange remote semi softball sub volleyball
    """
)
VERBS = _set(
    """
    bat bats bear bears board boards book books bowl bowls canoe cook cooks duck ducks kayak monitor monitors phone phones pilot
    pilots plant plants raft ram ship ships sink sinks ski skis steer tie ties train trains
    """
)
# What may stand beside "orange" where it is no fruit.
COLORS = _set(
    """
    red orange yellow green blue purple violet pink brown black white gray grey tan beige gold golden silver turquoise teal maroon
    navy bright light dark neon pale deep vivid striped spotted
    """
)


def plural(word: str) -> str:
    """The regular plural of an English expression: that of its last word."""
    if re.search(r"(s|x|z|ch|sh)$", word):
        return word + "es"
    return re.sub(r"(?<![aeiou])y$", "ie", word) + "s"


@cache
def words(category: str) -> dict[str, bool]:
    """The words that name objects of a category, in small letters, and whether each means several
    of them.

    A category outside the table has its own name and the plural of it.
    """
    name = " ".join(re.split(r"[\s_-]+", category.lower()))
    row = WORDS.get(SAME.get(name, name), f"{name}/{plural(name)}")
    return {category.lower(): False, name: False, **dict(_forms(row))}


@cache
def compounds() -> frozenset[str]:
    """Every expression of several words, of the table or not, that may hold a word of another
    category."""
    pairs = [
        f"{first} {second}" for first, seconds in LEADING.items() for second in seconds.split()
    ]
    pairs += [
        f"{first} {second}" for second, firsts in TRAILING.items() for first in firsts.split()
    ]
    forms = [form for row in [*WORDS.values(), LONGER, ",".join(pairs)] for form, _ in _forms(row)]
    return frozenset(form for form in forms if re.search(r"\W", form))


def _forms(row: str) -> list[tuple[str, bool]]:
    forms = []
    for entry in row.split(","):
        one, stroke, several = " ".join(entry.split()).partition("/")
        forms += [
            (form, of_several)
            for form, of_several in ((several if stroke else plural(one), True), (one, False))
            if form
        ]
    return forms
