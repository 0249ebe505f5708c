"""Classes made of others at run time, whatever those do with their subclasses."""

import abc

import pytest

from socksy.sockets.dial import guise
from socksy.sockets.kinds import combine


class Other:
    pass


def test_it_is_both_and_has_its_own_members():
    class One:
        pass

    kind = combine("Both", (One, Other), {"x": 1})

    assert kind.__mro__ == (kind, One, Other, object)
    assert (kind.__name__, kind.x) == ("Both", 1)


def test_a_registry_of_subclasses_does_not_hear_of_it():
    heard = []

    class One:
        def __init_subclass__(cls, *, key, **options):
            super().__init_subclass__(**options)
            heard.append((cls.__name__, key))

    kind = combine("Two", (combine("Both", (One, Other), {}), Other), {})
    assert heard == []
    assert issubclass(kind, One)

    class Derived(kind, key=7):
        pass

    assert heard == [("Derived", 7)]


class Registering(type):
    heard = []  # noqa: RUF012 - a registry, as programs have them

    def __new__(cls, name, bases, members, *, key):
        cls.heard.append((name, key))
        return super().__new__(cls, name, bases, members)

    def __init__(cls, name, bases, members, *, key):
        super().__init__(name, bases, members)

    def shout(cls):
        return cls.__name__.upper()


class Abstract(abc.ABC):
    @abc.abstractmethod
    def needed(self):
        """Something."""


class Registered(metaclass=Registering, key=1):
    pass


@pytest.mark.parametrize(
    "bases",
    [(Registered, Other), (Other, Registered), (Registered, Abstract), (Abstract, Registered)],
)
def test_metaclasses_are_joined_and_do_not_hear_of_it_either(bases):
    kind = combine("Both", bases, {})

    assert all(isinstance(kind, type(base)) for base in bases)
    assert kind.shout() == "BOTH"
    assert Registering.heard == [("Registered", 1)]


def test_an_abstract_class_stays_one():
    with pytest.raises(TypeError, match="abstract"):
        combine("Both", (Abstract, Other), {})()
    kind = combine("Both", (Abstract, Other), {"needed": lambda self: 1})
    assert kind().needed() == 1
    kind.register(int)
    assert isinstance(3, kind)
    assert isinstance(3, Abstract)
    assert not isinstance("3", kind)


def test_what_does_not_go_together_is_an_error():
    with pytest.raises(TypeError):
        combine("Both", (object, Other), {})


class Base:
    def told(self):
        return ["base"]


class Home(Base):
    """Of a program: calls what it has from its base by a name of its own."""

    def told(self):
        return ["home", *super().told()]

    def asked(self):
        return super().told()


class Front(Base):
    pass


class Back(Base):
    def told(self):
        return ["back"]


def test_a_guise_comes_before_and_behind_the_class_it_is_for():
    """With its name, and no method that it has not."""
    kind = guise(Home, Front, Back, {"told": lambda self: ["front"], "untold": None})

    assert kind.__mro__ == (kind, Front, Home, Back, Base, object)
    assert (kind().told(), kind().asked()) == (["front"], ["back"])
    assert (kind.__name__, kind.__module__) == (Home.__name__, Home.__module__)
    assert not hasattr(kind, "untold")
