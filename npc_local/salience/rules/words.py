"""Words whose part in a prompt is certain without a grammar, shared by the rules that find T(p).

General English only: what things are called is left to the rules, but for compounds whose first
word would be taken for something else.
"""

from __future__ import annotations

import re


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES = _set("a an the")
NUMBERS = _set(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty
    ninety hundred hundreds thousand thousands million millions billion billions dozen dozens pair
    pairs couple several few many multiple numerous trio single"""
)
# What other numbers are multiples of: "two hundred".
MAGNITUDES = _set("hundred thousand million billion dozen")
_TENS = _set("twenty thirty forty fifty sixty seventy eighty ninety")
# These count only what follows an "of": "a pair of shoes", but "a happy couple".
COLLECTIVES = _set("pair pairs couple dozens hundreds thousands millions billions trio")

COLOURS = _set(
    """red orange yellow green blue purple violet indigo pink brown black white gray grey cyan
    magenta teal turquoise maroon navy beige crimson scarlet lavender lilac mauve fuchsia tan
    khaki olive coral salmon peach burgundy aqua azure cerulean ochre sepia ivory cream charcoal
    gold golden silver bronze copper amber emerald jade ruby sapphire vermilion saffron plum
    mustard rainbow colorful colourful multicolored multicoloured monochrome blonde blond
    aquamarine chartreuse taupe periwinkle sienna umber"""
)
# Colours that are things as well: which of the two depends on where they stand.
COLOUR_THINGS = _set(
    """orange lavender lilac tan olive coral salmon peach ivory cream charcoal gold silver bronze
    copper amber emerald jade ruby sapphire saffron plum mustard rainbow violet"""
)
# What a colour may be compared to or toned by, when a colour follows at once: "mint green".
SHADES = _set(
    """deep dark light pale bright neon pastel ocean sky navy royal baby lime mint forest olive sea
    emerald jade cobalt midnight matte hot dusty burnt blood cherry ruby brick wine rose salmon
    coral lemon mustard golden canary sunflower rust rusty fiery fire electric steel slate
    charcoal coal jet snow milky ivory pearl cream creamy chocolate coffee espresso caramel
    chestnut ash smoky silver metallic powder ice icy aqua turquoise teal lavender plum grape
    orchid candy bubblegum fluorescent peach moss army hunter kelly grass pea apple apricot
    tangerine pumpkin honey amber copper bronze cool warm muted soft faded rich vivid vibrant
    pure prussian reddish bluish greenish yellowish brownish pinkish grayish greyish purplish
    blue red green yellow orange purple violet pink brown gray grey black white"""
)
SIZES = _set(
    """big bigger biggest large larger largest small smaller smallest tiny tinier huge giant
    gigantic enormous massive colossal mini miniature little tall taller tallest short shorter
    shortest long longer longest wide wider narrow thin thinner thick thicker oversized petite
    compact towering immense vast minuscule microscopic slim fat heavy deep shallow high low
    medium jumbo"""
)
MATERIALS = _set(
    """wood wooden metal metallic glass plastic stone marble granite concrete brick clay ceramic
    porcelain crystal ice paper cardboard leather silk velvet velvety cotton wool woolen woollen
    denim linen fabric lace straw wicker bamboo rattan oak pine mahogany walnut teak iron steel
    aluminum aluminium brass bronze copper gold golden silver tin chrome titanium platinum
    rubber rubbery foam felt fur canvas satin suede corduroy wax sand sandy snow mud terracotta
    jade ivory pearl diamond emerald ruby sapphire quartz obsidian slate cork vinyl nylon
    polyester burlap tile tiled chocolate lego tweed knit tinfoil enamel adobe thatch neon"""
)
SHAPES = _set(
    """round circular square rectangular triangular oval spherical cubic cubical cylindrical
    conical hexagonal octagonal pentagonal pyramidal curved flat straight pointed jagged zigzag
    spiral angular geometric elongated crescent domed heart-shaped star-shaped"""
)
QUALITIES = _set(
    """old new young ancient modern antique vintage rustic medieval futuristic classic soft hard
    smooth rough shiny glossy matte polished sleek dull bright dark transparent translucent
    clear empty full open closed wet dry hot cold warm frozen melted broken cracked rusty dusty
    dirty clean fresh ripe rotten fluffy furry hairy bald happy sad angry cute beautiful pretty
    ugly elegant fancy plain simple striped spotted dotted checkered patterned plaid floral
    ornate carved painted woven knitted sparkling glittering glowing shimmering luminous vibrant
    vivid pastel fiery stuffed inflatable sleepy sleeping lazy brave wild domestic tropical
    snowy rainy cloudy sunny foggy misty stormy grassy rocky sharp blunt loose tight smiling
    upside-down upright weathered worn crumpled folded friendly scary mysterious magical
    mechanical electric electronic digital wrinkled quiet lush dense arid cozy quaint grand
    urban rural delicious tasty juicy crispy spicy sweet salty tranquil serene blocky adrift
    precious perfect busy crowded rounded mossy holographic rich"""
)
ADJECTIVES = SIZES | SHAPES | QUALITIES
# Adjectives that are things where no noun follows: "a blue square".
ADJECTIVE_THINGS = _set("square round oval spiral crescent giant miniature antique plain")
# Endings of adjectives even where the word is tagged as a noun; and adjectives made of names,
# beside those in -ian.
ADJECTIVAL = ("ous", "escent", "esque", "ful")
DEMONYMS = _set(
    """roman german norman gothic arabic greek french dutch swiss thai american mexican african
    jamaican korean mediterranean caribbean european japanese chinese vietnamese portuguese maltese
    siamese british english irish scottish welsh spanish swedish danish finnish turkish polish
    jewish moorish celtic nordic arctic balinese burmese lebanese"""
)
ADJECTIVES_IN_LY = _set(
    """elderly early daily deadly ghostly lively oily scaly pearly sparkly cuddly prickly lovely
    friendly lonely curly woolly bubbly ugly silly jolly chilly holy family"""
)
NOUN_ENDINGS = ("man", "men", "woman", "women")
# Endings that hardly any noun has.
ADJECTIVE_ENDINGS = (
    *("-shaped", "-sized", "-colored", "-coloured", "-like", "-textured", "-coated", "-covered"),
    *("-patterned", "-looking", "-styled", "-style", "-faced", "-haired", "-legged", "-eyed"),
    *("-made", "-striped", "-toned", "-tone", "-themed"),
)

RELATIONS = _set(
    """left right above below top bottom behind under beneath underneath beside besides between
    among amongst amid amidst inside outside around against over across atop through along
    alongside opposite near nearby within underwater overhead leftmost rightmost upper lower
    upon beyond"""
)
# The longest of those that begin alike comes first.
RELATION_PHRASES: tuple[tuple[str, ...], ...] = tuple(
    tuple(phrase.split())
    for phrase in (
        *("in front of", "on top of", "at the top", "side by side", "next to", "close to"),
        *("opposite to", "adjacent to", "in between"),
    )
)
# Of "middle" and its like it depends: "in the middle of" is a place.
PLACES = _set("middle center centre")

# What a picture is. Where it is a thing in the scene, and where the picture itself, is a matter of
# grammar (`depiction`).
MEDIA = _set(
    """photo photos photograph photographs picture pictures image images snapshot wallpaper artwork
    screenshot"""
)
ART = _set(
    """painting paintings art watercolor watercolour illustration illustrations drawing drawings
    sketch sketches portrait portraits cartoon anime depiction poster posters print prints collage
    engraving mosaic comic mural"""
)
# These are hardly ever things in a scene.
LOOKS = _set("photography render renders rendering renderings selfie close-up closeup shot")
VIEWS = _set("scene view depiction")
# What a picture does, how it was made, which pictures are hung up and where, what it is made on;
# where a photo is kept, and what is made for pictures: "a photo in an album", "a picture frame".
PICTURE_VERBS = _set(
    """showing shows show depicting depicts featuring features containing contains capturing
    captures portraying portrays illustrating"""
)
MADE = _set(
    """taken shot made drawn painted captured rendered done created inspired seen styled
    photographed"""
)
HUNG = _set("poster posters print prints mural murals collage collages")
SURFACES = _set("wall walls door doors fridge refrigerator billboard board corkboard pole ceiling")
PICTURE_GROUNDS = _set("canvas paper silk parchment linen film instagram")
PICTURE_KEEPERS = _set(
    """frame frames album albums museum gallery book books hand hands locket wallet drawer box
    bedroom kitchen hallway room"""
)
PICTURE_HEADS = _set("frame frames album albums book books booth gallery easel")
ART_MODIFIERS = _set(
    """oil digital pencil charcoal ink acrylic concept pixel vector line 3d cgi realistic photo
    hyperrealistic photorealistic watercolor watercolour style stylized abstract studio high low
    wide aerial macro color colour professional detailed black-and-white cinematic flat
    volumetric dramatic soft natural sharp shallow 35mm 50mm 85mm f film photography ambient rim
    best ultra highly very extremely fine minimalist minimalistic matte intricate symmetrical
    gothic impressionist surreal retro still life"""
)
QUALITY_WORDS = _set(
    """4k 8k 16k hd uhd hdr masterpiece artstation photorealistic photorealism hyperrealistic
    hyperrealism ultrarealistic bokeh octane unreal cinematic dslr-quality raytracing
    ultra-detailed hyper-detailed high-resolution high-quality award-winning deviantart pixiv"""
)
QUALITY_PHRASES: tuple[tuple[str, ...], ...] = tuple(
    tuple(phrase.split())
    for phrase in (
        *("highly detailed", "ultra detailed", "extremely detailed", "very detailed"),
        *("intricate details", "intricate detail", "sharp focus", "soft focus", "best quality"),
        *("high quality", "high resolution", "trending on artstation", "trending on"),
        *("oil on canvas", "unreal engine", "octane render", "award winning", "depth of field"),
        *("ray tracing", "cinematic lighting", "dramatic lighting", "studio lighting"),
        *("soft lighting", "volumetric lighting", "natural lighting", "volumetric light"),
        *("concept art", "digital art", "ultra hd", "full hd"),
        *("rule of thirds", "golden hour lighting", "photo realistic", "picture perfect"),
    )
)

# Words of a request, at the beginning of a sentence.
REQUESTS = _set(
    """please generate create draw make paint render show give me i want need would like to see an
    a the us can could you this i'd 'd let imagine produce we we'd"""
)
STYLE_WORDS = _set("intricate detailed realistic cinematic surreal minimalist symmetrical")
STYLE_NOUNS = _set(
    """art film design style lighting light resolution quality focus lens photography rendering
    aesthetic palette composition angle background-blur 35mm 50mm 85mm exposure grain"""
)

# Nouns in -ing.
GERUND_NOUNS = _set(
    """building buildings ceiling painting string spring earring earrings evening morning railing
    clothing wedding pudding dumpling duckling sibling lightning awning icing frosting stuffing
    landing dressing drawing crossing opening being herring paving scaffolding topping lettering
    bedding sapling seedling carving etching stocking filling clearing sterling"""
)

NEGATIONS: tuple[tuple[str, ...], ...] = (
    *(("without",), ("no",), ("not",), ("never",), ("n't",), ("instead", "of"), ("rather", "than")),
    *(("free", "of"), ("devoid", "of"), ("lacking",), ("nor",), ("except",), ("neither",)),
)
# Verbs that put or show a thing, and say nothing that an image could miss.
PLACING = _set(
    """place places placed placing position positioned positioning locate located situate situated
    arrange arranged show shows shown showing depict depicts depicted depicting feature features
    featured featuring contain contains contained containing make makes made making compose
    composed build built consist consists consisting appear appears appearing include includes
    including included set see seen display displayed displaying present presented construct
    constructed craft crafted form formed create created render rendered fashion fashioned
    design designed use used have has had having resemble resembles resembling give gives giving
    be is are was were been being get gets do does did let lets become becomes seem seems look
    looks"""
)
# Everything else without content of its own.
FUNCTION_WORDS = _set(
    """a an the this that these those some any each every both all either neither such another
    other others same it its it's he she they them his her hers him their theirs we our us you
    your i my me who whom whose which what where when while why how there here one's itself
    themselves himself herself and or but nor so yet if because although though than as like of
    in on at to from by for with without into onto off up down out about toward towards via per
    since until during before after despite except is are was were be been being am has have had
    having do does did will would can could shall should may might must not no never very
    entirely completely fully quite rather too also just only even still almost nearly perfectly
    extremely highly slightly somewhat more most less least much instead together again then now
    once else own 's s n't 'm 're 've 'll 'd t ll re ve something anything everything someone
    kind type sort half place sized shaped enough ones"""
)

# A thing whose first word would be taken for an attribute, a verb or a thing of its own.
# "orange juice", "oak tree": what the first word would be alone, it is not here.
PLANT_PARTS = _set("tree trees forest forests juice blossom blossoms grove groves oil")
PLANTS = _set("""orange lavender lilac olive peach plum oak pine bamboo walnut mahogany teak""")
# "swimming pool", "washing machine": what the thing is for, and not what it does.
PURPOSES = _set(
    """baking boxing changing climbing cooking cutting dining diving drinking drying fishing frying
    gardening hiking knitting mixing parking punching racing rocking rowing running sailing
    serving sewing shopping skating sleeping spinning swimming vending walking washing weighing
    writing landing reading skiing"""
)
TOOLS = _set(
    """area bag bags board boards boat boats book books boot boots bowl bowls car cars cart carts
    chair chairs desk desks fountain fountains gear glove gloves lot lots machine machines mall
    malls meter meters needle needles net nets pan pans pot pots pole poles pool pools rack
    racks rod rods room rooms scale scales shoe shoes stick sticks suit suits table tables tray
    trays trunks wheel wheels strip strips lamp lamps"""
)
COMPOUNDS = frozenset(
    tuple(phrase.split())
    for phrase in (
        *("hot dog", "hot air balloon", "teddy bear", "stop sign", "parking meter"),
        *("dining table", "hair drier", "hair dryer", "baseball bat", "baseball glove"),
        *("tennis racket", "wine glass", "cell phone", "traffic light", "fire hydrant"),
        *("sports ball", "potted plant", "tv remote", "computer mouse", "computer keyboard"),
        *("remote control", "sports car", "ice cream", "ice cream cone", "red panda"),
        *("neon sign", "coral reef", "french fry", "jelly bean", "lily pad", "coffee table"),
        *("coffee cup", "street light", "candy cane", "high heel", "top hat", "polar bear"),
        *("living room", "guinea pig", "soccer ball", "tennis ball", "beach ball", "sushi roll"),
        *("bow tie", "train station", "picnic table", "office chair", "alarm clock"),
        *("passion fruit", "dragon fruit", "ferris wheel", "car seat", "hard hat", "black hole"),
        *("toy car", "bell pepper", "light bulb", "hot tub", "walking cane", "paper clip"),
        *("paper bag", "gas station", "picture frame", "photo frame", "photo album"),
        *("picture book", "photo booth"),
    )
)


def is_compound(words: tuple[str, ...]) -> bool:
    """Tell whether the words, in singular or plural, are a thing of more than one word."""
    *first, last = words
    endings = {last, last.removesuffix("s"), last.removesuffix("es")}
    if last.endswith("ies"):
        endings.add(f"{last[:-3]}y")
    if len(words) == 2 and last in PLANT_PARTS and first[0] in PLANTS:
        return True
    if len(words) == 2 and first[0] in PURPOSES and last in TOOLS:
        return True
    return any((*first, ending) in COMPOUNDS for ending in endings)


# Numbers that others are made of: "twenty-one", but not "one-pair".
_CARDINALS = NUMBERS - COLLECTIVES - _set("several few many multiple numerous single")
_GROUPED = re.compile(r"\d+(?:[.,]\d+)+")


def is_number(word: str) -> bool:
    """Tell whether a word says how many, in digits or letters; not for years and the like.

    "1,000", "3.5", "twenty-one" and "two-hundred-and-one" are one number each.
    """
    if word.isdecimal():
        return len(word) != 4 or not 1100 <= int(word) < 2100
    first, *others = word.split("-")
    return (
        word in NUMBERS
        or _GROUPED.fullmatch(word) is not None
        or (first in _CARDINALS and all(part in _CARDINALS or part == "and" for part in others))
    )


def continues_number(before: str, word: str) -> bool:
    """Tell whether two words, one behind the other, are one number: "two hundred", "twenty one"."""
    if before not in _CARDINALS and not (before[:1].isdecimal() and is_number(before)):
        return False
    return word in MAGNITUDES or (before in MAGNITUDES | _TENS and word in _CARDINALS)


def is_adjective(word: str) -> bool:
    """Tell whether a word is an attribute before a noun, whatever the sentence."""
    return word in ADJECTIVES or word.endswith(ADJECTIVE_ENDINGS)


def is_colour(word: str) -> bool:
    """Tell whether a word is a colour, or compares one: "ocean-blue"."""
    return word in COLOURS or ("-" in word and word.rsplit("-", 1)[1] in COLOURS - COLOUR_THINGS)


def is_adverb(word: str) -> bool:
    """Tell whether a word in -ly says how; nouns in -ly are the caller's matter."""
    return len(word) > 5 and word.endswith("ly") and word not in ADJECTIVES_IN_LY
