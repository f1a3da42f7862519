"""The words of generated pages: names, trades, and sentences made from them.

Every list is small on purpose and every sentence is composed, so that millions of pages differ. Names, numbers, codes
and invented words are frequent: a model that converts such pages has to read, it cannot guess.
"""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, kw_only=True)
class Trade:
    """A line of business: what it is called, what it offers, and how people speak of it."""

    name: str
    brand_endings: tuple[str, ...]
    goods: tuple[str, ...]
    qualities: tuple[str, ...]
    actions: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _trade(name: str, endings: str, goods: str, qualities: str, actions: str) -> Trade:
    return Trade(
        name=name,
        brand_endings=tuple(endings.split("|")),
        goods=tuple(goods.split("|")),
        qualities=tuple(qualities.split("|")),
        actions=tuple(actions.split("|")),
    )


TRADES = (
    _trade(
        "bakery",
        "Bakery|Bread|Ovens|Crumb",
        "rye loaf|oat biscuit|plum tart|seeded roll|almond cake|cheese twist|fig bun|malt bread",
        "warm|crusty|slow-risen|golden|hand-shaped",
        "bake|knead|deliver|slice|wrap",
    ),
    _trade(
        "law office",
        "Legal|Partners|Chambers|Counsel",
        "contract review|tenancy advice|will drafting|patent search|mediation|company filing|court hearing",
        "calm|thorough|discreet|plain-spoken|careful",
        "advise|draft|argue|settle|review",
    ),
    _trade(
        "bicycle shop",
        "Cycles|Wheels|Spokes|Bikes",
        "touring bike|brake service|gravel frame|child seat|wheel truing|cargo trailer|dynamo lamp|saddle bag",
        "light|quiet|sturdy|well-tuned|rust-free",
        "repair|tune|rent|build|collect",
    ),
    _trade(
        "dental clinic",
        "Dental|Smiles|Clinic|Care",
        "check-up|root canal|whitening|crown fitting|gum therapy|night guard|first visit|X-ray",
        "gentle|painless|modern|patient|hygienic",
        "treat|examine|polish|explain|book",
    ),
    _trade(
        "garden centre",
        "Gardens|Nursery|Plants|Greens",
        "olive tree|raised bed|herb box|rose bush|compost bin|fern basket|seed packet|clay pot",
        "hardy|fragrant|organic|evergreen|frost-proof",
        "plant|prune|water|sow|harvest",
    ),
    _trade(
        "software firm",
        "Labs|Systems|Cloud|Stack",
        "audit log|backup plan|query engine|status page|build cache|billing module|login service|data export",
        "fast|typed|reliable|open|well-documented",
        "deploy|monitor|encrypt|migrate|test",
    ),
    _trade(
        "hotel",
        "Hotel|Lodge|Inn|House",
        "double room|garden suite|late checkout|breakfast tray|sauna pass|ski shuttle|family room|roof terrace",
        "quiet|sunlit|spacious|family-run|airy",
        "host|welcome|reserve|serve|greet",
    ),
    _trade(
        "music school",
        "Music|Strings|Academy|Studio",
        "cello lesson|choir evening|drum course|theory class|piano exam|jazz workshop|violin hire|ear training",
        "joyful|focused|lively|unhurried|playful",
        "teach|practise|perform|record|rehearse",
    ),
    _trade(
        "travel agency",
        "Travel|Trails|Journeys|Tours",
        "fjord cruise|city break|rail pass|desert trek|island week|wine route|night train|visa service",
        "small-group|scenic|carefree|guided|off-season",
        "plan|guide|compare|book|explore",
    ),
    _trade(
        "gym",
        "Fitness|Gym|Strength|Club",
        "rowing class|yoga hour|boxing camp|day pass|spin session|mobility plan|swim lane|coach call",
        "strong|steady|friendly|intense|balanced",
        "train|lift|stretch|coach|recover",
    ),
    _trade(
        "bookshop",
        "Books|Pages|Reads|Paper",
        "used atlas|poetry shelf|crime novel|gift card|signed copy|comic box|audio book|school reader",
        "rare|curious|well-loved|quiet|fresh",
        "read|order|lend|recommend|browse",
    ),
    _trade(
        "animal rescue",
        "Rescue|Paws|Shelter|Haven",
        "foster home|vet fund|cat visit|dog walk|winter blanket|adoption day|food parcel|rabbit hutch",
        "kind|patient|tireless|hopeful|loyal",
        "adopt|foster|feed|rescue|donate",
    ),
    _trade(
        "architect",
        "Architects|Design|Studio|Forms",
        "timber house|loft plan|school annex|stair detail|site survey|model set|facade study|green roof",
        "bright|modest|daring|precise|durable",
        "sketch|measure|restore|build|model",
    ),
    _trade(
        "fishmonger",
        "Fish|Harbour|Catch|Seafood",
        "smoked trout|crab claw|mussel sack|cod fillet|oyster dozen|squid ring|herring jar|salmon side",
        "fresh|briny|line-caught|local|icy",
        "gut|smoke|cure|ship|grill",
    ),
    _trade(
        "bank",
        "Bank|Savings|Credit|Trust",
        "fixed rate|joint account|travel card|home loan|budget tool|pension pot|fraud alert|cash machine",
        "secure|transparent|low-fee|instant|sound",
        "save|lend|transfer|invest|protect",
    ),
    _trade(
        "observatory",
        "Observatory|Sky|Orbit|Stars",
        "comet night|lens course|moon atlas|dome tour|solar walk|star party|radio dish|meteor camp",
        "dark|vast|clear|silent|distant",
        "observe|chart|photograph|point|wonder",
    ),
)

FIRST_NAMES = _words(
    "Ada Amir Anouk Bela Bruno Carmen Chidi Dara Diego Edda Elif Emeka Fatima Felix Gita Goran Hana Hugo Ida Imran "
    "Ines Ivo Jana Jonas Kaya Kenji Lars Leila Lucia Magnus Maya Mirko Nadia Nils Noor Olga Omar Petra Quentin Rania "
    "Rafael Saskia Sven Talia Tomas Uma Vera Viktor Wanda Xenia Yara Yusuf Zelda Zoran"
)
CITIES = _words(
    "Aarhus Bergen Bilbao Brno Cork Delft Dresden Essen Faro Galway Ghent Graz Jena Kaunas Krakow Leiden Lille Lucca "
    "Malaga Nancy Odense Oulu Parma Porto Riga Siena Split Tartu Trento Turku Utrecht Varna Vigo York Zadar"
)
STREETS = ("Street", "Road", "Lane", "Square", "Row", "Hill", "Quay", "Yard", "Walk", "Gate")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "March", "April", "May", "June", "July", "August", "October", "November", "December")
ADVERBS = _words(
    "always quickly gladly rarely often simply quietly truly promptly warmly safely exactly hardly nearly twice"
)
OBJECTS = _words(
    "awning balcony bracket buckle canyon cipher cobalt copper crystal dagger easel ember enzyme fjord gazebo glacier "
    "goblet gravel hammock harbour hinge horizon igloo indigo jasmine jigsaw kayak kettle kiosk ladder lantern "
    "lattice magnet marble meadow mosaic nectar nozzle oxygen oyster paddle pebble pivot plaza prism quartz quilt "
    "rhythm ribbon saffron scaffold sphinx syrup tablet thimble topaz tunnel turbine umber valley velvet vortex "
    "walnut willow wizard yacht zenith zephyr zigzag"
)
_STARTS = _words("b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sk st t tr v w x y z")
_VOWELS = _words("a e i o u ai ea ou oo ie")
_ENDS = ("", *_words("n r l s th m nd rk x ck st"))
CURRENCIES = ("${}", "€{}", "£{}", "{} kr", "{} EUR")


def with_article(words: str) -> str:
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


class Writer:
    """Composes the words of one page. All its choices come from the page's own random stream."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.trade = random.choice(TRADES)
        self.city = random.choice(CITIES)
        self.currency = random.choice(CURRENCIES)
        self.brand = self._brand()

    def pick(self, options: tuple[str, ...]) -> str:
        return self.random.choice(options)

    def invented(self) -> str:
        """A word in no dictionary, one to three syllables."""
        parts = [
            self.pick(_STARTS) + self.pick(_VOWELS) + self.pick(_ENDS) for _ in range(self.random.choice((1, 2, 2, 3)))
        ]
        return "".join(parts)

    def surname(self) -> str:
        return self.invented().capitalize()

    def person(self) -> str:
        return f"{self.pick(FIRST_NAMES)} {self.surname()}"

    def _brand(self) -> str:
        ending = self.pick(self.trade.brand_endings)
        form = self.random.randrange(4)
        if form == 0:
            return f"{self.surname()} {ending}"
        if form == 1:
            return f"{self.surname()} & {self.surname()}"
        if form == 2:
            return f"{self.city} {ending}"
        return f"{self.pick(OBJECTS).capitalize()} {ending}"

    def number(self) -> str:
        return str(self.random.randrange(2, 10 ** self.random.randrange(1, 5)))

    def price(self) -> str:
        whole = self.random.randrange(1, 10 ** self.random.randrange(1, 4))
        cents = self.pick(("", ".50", ".95", f".{self.random.randrange(10, 100)}"))
        return self.currency.format(f"{whole}{cents}")

    def time(self) -> str:
        return f"{self.random.randrange(6, 23)}:{self.pick(('00', '15', '30', '45'))}"

    def date(self) -> str:
        return f"{self.random.randrange(1, 29)} {self.pick(MONTHS)} {self.random.randrange(1987, 2039)}"

    def code(self) -> str:
        letters = "".join(self.random.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(2))
        return f"{letters}-{self.random.randrange(100, 10000)}"

    def phone(self) -> str:
        return f"+{self.random.randrange(20, 99)} {self.random.randrange(100, 999)} {self.random.randrange(1000, 9999)}"

    def email(self) -> str:
        return f"{self.pick(FIRST_NAMES).lower()}@{self.invented()}.{self.pick(('com', 'org', 'net', 'eu'))}"

    def address(self) -> str:
        return f"{self.random.randrange(1, 240)} {self.surname()} {self.pick(STREETS)}, {self.city}"

    def good(self) -> str:
        return self.pick(self.trade.goods)

    def thing(self) -> str:
        """A good of the trade, a plain object, or an invented word."""
        form = self.random.randrange(4)
        if form == 0:
            return self.pick(OBJECTS)
        if form == 1:
            return f"{self.pick(OBJECTS)} {self.good()}"
        if form == 2:
            return f"{self.surname()} {self.good()}"
        return self.good()

    def title(self) -> str:
        """Two to four words for a heading."""
        quality, good, action = self.pick(self.trade.qualities), self.thing(), self.pick(self.trade.actions)
        forms = (
            f"{quality} {good}",
            f"our {good}",
            f"{action} with {self.pick(FIRST_NAMES)}",
            f"the {self.pick(OBJECTS)} {good}",
            f"{self.surname()} {action}",
            f"{good} in {self.city}",
            f"{self.number()} {self.pick(OBJECTS)} ideas",
        )
        text = self.pick(forms)
        return text[0].upper() + text[1:]

    def sentence(self) -> str:
        """One sentence of six to fourteen words."""
        quality, action = self.pick(self.trade.qualities), self.pick(self.trade.actions)
        forms = (
            f"We {action} every {self.thing()} {self.pick(ADVERBS)} and by hand.",
            f"Since {self.random.randrange(1890, 2026)}, {self.surname()} has kept {self.city} {quality}.",
            f"Ask {self.person()} about the {quality} {self.thing()}.",
            f"Each {self.thing()} comes with {with_article(self.pick(OBJECTS))} and {self.number()} notes.",
            f"Open on {self.pick(DAYS)} from {self.time()} to {self.time()}.",
            f"Our {quality} team can {action} your {self.thing()} in {self.number()} days.",
            f"{with_article(self.pick(OBJECTS)).capitalize()} by the {self.pick(OBJECTS)}: "
            f"{self.pick(ADVERBS)} {quality}, never dull.",
            f"Call {self.phone()} before {self.date()}.",
            f"“{self.invented().capitalize()}” means {quality}, and we {self.pick(ADVERBS)} {action}.",
            f"From {self.price()}, with {self.random.randrange(5, 80)}% off for members.",
            f"You {action}; we bring the {self.pick(OBJECTS)} and the {self.thing()}.",
            f"Is your {self.pick(OBJECTS)} {quality}? Then {action} it today!",
        )
        return self.pick(forms)

    def phrase(self) -> str:
        """Two to six words without a full stop: a list item or a caption."""
        forms = (
            f"{self.pick(self.trade.qualities)} {self.thing()}",
            f"{self.thing()} ({self.price()})",
            f"{self.number()} {self.pick(OBJECTS)} parts",
            f"{self.pick(self.trade.actions)} on {self.pick(DAYS)}",
            f"{self.pick(FIRST_NAMES)}'s {self.good()}",
            f"{self.code()} {self.pick(OBJECTS)}",
        )
        text = self.pick(forms)
        return text[0].upper() + text[1:]

    def link(self) -> str:
        """One or two words for navigation."""
        forms = (
            self.pick(("Home", "About", "Shop", "News", "Team", "Contact", "Prices", "Help", "Blog", "Visit", "Menu")),
            self.pick(self.trade.actions).capitalize(),
            self.pick(OBJECTS).capitalize(),
        )
        return self.pick(forms)

    def call_to_action(self) -> str:
        action = self.pick(self.trade.actions).capitalize()
        return self.pick(
            (f"{action} now", "Learn more", f"{action} {with_article(self.pick(OBJECTS))}", "Get in touch", "Join us")
        )
