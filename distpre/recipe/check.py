"""What a recipe's parts say of each other, checked before any process starts."""

from __future__ import annotations

from typing import Any, NoReturn

from distpre.errors import RecipeError
from distpre.recipe.document import Document, Key, dotted
from distpre.recipe.kinds import listed, nearest
from distpre.recipe.resolve import faults, schedule_faults
from distpre.recipe.schema import Component, Recipe

# Keywords that name views: of a term, of an evaluator.
_OF_TERMS = ("rows", "columns", "views", "of", "positives", "denominator")
_OF_TABLES = (*_OF_TERMS, "view", "image", "text")
_OF_IDS = ("id", "by", "apart")


def check(recipe: Recipe, document: Document) -> None:
    """Components against their constructors, references against what they name. Raises RecipeError for the first."""
    for key, component, seam in components(recipe):
        for at, what, remedy in faults(component, seam):
            _refuse(document, (*key, *at), what, remedy)
    rates = {("objective", name, "weight"): term.weight for name, term in recipe.objective.items()}
    for key, rate in {("train", "optimiser", "lr"): recipe.train.optimiser.lr, **rates}.items():
        for at, what, remedy in schedule_faults(rate):
            _refuse(document, (*key, *at), what, remedy)
    for key, name, known, kind in references(recipe):
        if name not in known:
            _refuse(document, key, f"there is no {kind} {name!r}.", f"{nearest(name, known)}There is {listed(known)}.")
    _each_view_has_one_tower(recipe, document)
    _names_are_plain(recipe, document)
    _held_is_what_training_sees(recipe, document)
    _replay_is_sized(recipe, document)
    _one_order(recipe, document)
    _batch_divides(recipe, document)


def components(recipe: Recipe) -> list[tuple[Key, Component, str]]:
    """(key, component, seam) of all that the frame holds."""
    found: list[tuple[Key, Component, str]] = []
    if recipe.data.prepare:
        found.append((("data", "prepare"), recipe.data.prepare, "prepare"))
    if recipe.data.pairing:
        found.append((("data", "pairing"), recipe.data.pairing, "pairing"))
    for name, view in recipe.views.items():
        for kind in ("ops", "eval_ops"):
            found += [(("views", name, kind, i), op, "op") for i, op in enumerate(getattr(view, kind) or ())]
    for name, tower in recipe.towers.items():
        found.append((("towers", name, "encoder"), tower.encoder, "encoder"))
        found += [(("towers", name, "head"), tower.head, "head")] if tower.head else []
    found += [(("teachers", name), teacher, "teacher") for name, teacher in recipe.teachers.items()]
    found += [(("weighting", name), each, "weighting") for name, each in recipe.weighting.items()]
    found += [(("objective", name), term.component, "term") for name, term in recipe.objective.items()]
    if recipe.evaluate:
        found += [(("evaluate", "tables", n), table, "evaluator") for n, table in recipe.evaluate.tables.items()]
    return found


def references(recipe: Recipe) -> list[tuple[Key, str, Any, str]]:
    """(key, the name used, the names there are, what kind of thing it names)."""
    found: list[tuple[Key, str, Any, str]] = []
    sources, evaluate = recipe.data.sources, recipe.evaluate
    embedded = list(dict.fromkeys(view for tower in recipe.towers.values() for view in tower.views))
    taught = [f"{name}.{view}" for name, teacher in recipe.teachers.items() for view in views_of(recipe, teacher)]
    for name, tower in recipe.towers.items():
        found += [(("towers", name, "views", i), view, recipe.views, "view") for i, view in enumerate(tower.views)]
    for name, teacher in recipe.teachers.items():
        found += _named(teacher.keywords(), ("teachers", name, "of"), recipe.towers, "tower")
        found += _named(teacher.keywords(), ("teachers", name, "views"), embedded, "view that a tower embeds")
        found += _named(teacher.keywords(), ("teachers", name, "around"), recipe.teachers, "teacher")
        for view, holder in _held(teacher).items():
            found.append((("teachers", name, "facts", view), view, embedded, "view that a tower embeds"))
            found.append((("teachers", name, "facts", view), holder, recipe.views, "view"))
    for name, each in recipe.weighting.items():
        found += _named(each.keywords(), ("weighting", name, "of"), recipe.objective, "term")
        known = sources["train"].ids if "train" in sources else {}
        for key in ("truth", "id"):
            found += _named(each.keywords(), ("weighting", name, key), known, "id of data.train")
    found.append((("data",), "train", sources, "source"))
    found += [(("data", "mixture", name), name, sources, "source") for name in recipe.data.mixture]
    for name, source in sources.items():
        named = enumerate(source.optional)
        found += [(("data", name, "optional", i), f, source.fields, f"field of data.{name}") for i, f in named]
        found += [(("data", name, "shapes", f), f, source.fields, f"field of data.{name}") for f in source.shapes]
    if recipe.data.pairing and "train" in sources:
        keywords, ids = recipe.data.pairing.keywords(), sources["train"].ids
        found += _named(keywords, ("data", "pairing", "id"), ids, "id of data.train")
    found += [(("evaluate", "data"), evaluate.data, sources, "source")] if evaluate else []
    made = [("train", recipe.trained_views()), *([(evaluate.data, recipe.evaluated_views())] if evaluate else [])]
    for source, names in made:
        fields = sources[source].fields if source in sources else {}
        kind = f"field of data.{source}"
        found += [(("views", name, "field"), recipe.views[name].field, fields, kind) for name in names]
    readers = [(("objective", n), term.component, "train", _OF_TERMS) for n, term in recipe.objective.items()]
    if evaluate:
        readers += [(("evaluate", "tables", n), t, evaluate.data, _OF_TABLES) for n, t in evaluate.tables.items()]
    readers += [((*at, "term"), inner, *rest) for at, component, *rest in readers if (inner := _inner(component))]
    if evaluate:
        domains = evaluate.domains.items()
        ids = sources[evaluate.data].ids if evaluate.data in sources else {}
        kind = f"id of data.{evaluate.data}"
        found += [(("evaluate", "domains", domain, id), id, ids, kind) for domain, where in domains for id in where]
    for name, spec in sources.items():
        found += [(("data", name, "where", id), id, spec.ids, f"id of data.{name}") for id in spec.where]
    for at, component, source, views in readers:
        keywords = component.keywords()
        ids = sources[source].ids if source in sources else {}
        for key in views:
            found += _named(keywords, (*at, key), embedded + taught, "view that a tower embeds")
        facts = keywords.get("facts") if isinstance(keywords.get("facts"), dict) else {}
        found += [((*at, "facts", fact), view, recipe.views, "view") for fact, view in facts.items()]
        if at[0] == "objective" and at[-1] == "term":  # of parts, whose ids are also what the term around it holds
            ids = {**ids, **_held(recipe.objective[at[1]].component)}
        known = {**facts, **recipe.weighting, **ids}
        for key in ("quality", "amount"):
            found += _named(keywords, (*at, key), known, "fact, weighting or id")
        found += _named(keywords, (*at, "scale"), recipe.scales, "scale")
        found += _named(keywords, (*at, "against"), recipe.teachers, "teacher")
        found += _named(keywords, (*at, "teacher"), recipe.teachers, "teacher")
        found += _named(keywords, (*at, "estimates"), recipe.weighting, "weighting")
        found += _named(keywords, (*at, "paced"), recipe.weighting, "weighting")
        for key in _OF_IDS:
            found += _named(keywords, (*at, key), ids, f"id of data.{source}")
        for part, nested in keywords.items():
            if isinstance(nested, dict):
                found += _named(nested, (*at, part, "id"), {**ids, **recipe.weighting}, f"id of data.{source}")
                found += _named(nested, (*at, part, "amount"), known, "fact, weighting or id")
    return found


def views_of(recipe: Recipe, teacher: Component) -> list[str]:
    """The views that a teacher embeds, or that samples hold its embeddings of."""
    if held := _held(teacher):
        return list(held)
    of, wanted = (teacher.keywords().get(key) for key in ("of", "views"))
    views = [view for name, tower in recipe.towers.items() if of is None or name in of for view in tower.views]
    return [view for view in views if wanted is None or view in wanted]


def _named(keywords: dict[str, Any], key: Key, known: Any, kind: str) -> list[tuple[Key, str, Any, str]]:
    """A name, or a list of them, under the key's last part; a number or a schedule names nothing."""
    value = keywords.get(str(key[-1]))
    if isinstance(value, str):
        return [(key, value, known, kind)]
    names = enumerate(value) if isinstance(value, list) else ()
    return [((*key, i), name, known, kind) for i, name in names if isinstance(name, str)]


def _each_view_has_one_tower(recipe: Recipe, document: Document) -> None:
    for view in recipe.views:
        towers = [name for name, tower in recipe.towers.items() for v in tower.views if v == view]
        if not towers and view not in _facts(recipe):
            there = f"Name it in towers.{listed(recipe.towers, 'or')}.views, or delete it."
            _refuse(document, ("views", view), "no tower embeds this view.", there)
        if len(towers) > 1:
            what = f"the view {view!r} is embedded {len(towers)} times, by {listed(towers)}."
            _refuse(document, ("towers", towers[-1], "views"), what, "Give it to one tower, once.")


def _facts(recipe: Recipe) -> set[str]:
    """Views that a term, a table or a teacher reads as they are."""
    readers = [term.component for term in recipe.objective.values()]
    readers += recipe.evaluate.tables.values() if recipe.evaluate else []
    readers += [inner for reader in readers if (inner := _inner(reader))]
    return {view for reader in [*readers, *recipe.teachers.values()] for view in _held(reader).values()}


def _inner(component: Component) -> Component | None:
    """The term that it puts to another use."""
    term = component.keywords().get("term")
    return Component(**term) if isinstance(term, dict) else None


def _held(reader: Component) -> dict[str, str]:
    facts = reader.keywords().get("facts")
    return facts if isinstance(facts, dict) else {}


def _names_are_plain(recipe: Recipe, document: Document) -> None:
    for kind in ("views", "towers", "teachers"):
        for name in getattr(recipe, kind):
            if "." in name:
                what = "a dot in this name: TEACHER.VIEW is how a term names what a teacher says of a view."
                _refuse(document, (kind, name), what, f"Call it {name.replace('.', '_')!r}.")


def _held_is_what_training_sees(recipe: Recipe, document: Document) -> None:
    for name, teacher in recipe.teachers.items():
        for view in _held(teacher):
            spec = recipe.views[view]
            if spec.eval_ops not in (None, spec.ops):
                what = f"samples hold what was said of views.{view}.eval_ops, and training sees its `ops`."
                _refuse(document, ("teachers", name, "facts", view), what, "Make them one, without `eval_ops`.")
            field = recipe.views[_held(teacher)[view]].field
            if any(field in source.optional for source in recipe.data.sources.values()):
                what = f"it is read from the field {field!r}, which samples may lack."
                _refuse(document, ("teachers", name, "facts", view), what, "Embed all samples, or let none lack it.")


def _replay_is_sized(recipe: Recipe, document: Document) -> None:
    replay = recipe.data.replay
    if replay is not None and (replay.share is None) == (replay.samples is None):
        what = "a buffer has `share` (of each earlier domain) or `samples` (of each): one of the two."
        _refuse(document, ("data", "replay"), what, "Write {share: 0.02, weight: 0.25}.")


def _one_order(recipe: Recipe, document: Document) -> None:
    data = recipe.data
    said = [name for name in ("pairing", "mixture", "replay") if getattr(data, name)]
    if len(said) > 1:
        what = f"data.{said[0]} and data.{said[1]} are two orders of the training data."
        _refuse(document, ("data", said[1]), what, "Keep one of them.")


def _batch_divides(recipe: Recipe, document: Document) -> None:
    workers, parts, batch = recipe.launch.workers.max, recipe.train.accumulation, recipe.train.batch
    share = workers * parts
    if batch % share:
        near = [n for n in (batch // share * share, (batch // share + 1) * share) if n]
        what = f"the global batch {batch} does not divide by launch.workers {workers} x train.accumulation {parts}."
        _refuse(document, ("train", "batch"), what, f"The nearest that does: {listed(near, 'or')}.")


def _refuse(document: Document, key: Key, what: str, remedy: str) -> NoReturn:
    raise RecipeError(f"{document.origin(key)}: {dotted(key)}: {what}", remedy)
