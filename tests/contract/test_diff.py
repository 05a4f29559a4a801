"""`gatebook policy diff` and `DiffPolicySet`: what a change gains and loses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.serving import POLICIES, ROOT, RunningServer, gatebook, serving
from tests.telemetry_sets import telemetry_without_consent

from gatebook.cli.report import report_of
from gatebook.governance.difference import Aspect
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

TELEMETRY, CLINIC = POLICIES / "telemetry", POLICIES / "clinic"
MCI = Path("policy") / "mci.csv"
OPENED = "p, role:employee, mci.prompts, read, *, True, allow\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The telemetry set with purposes that need no consent, so that every gain can be asked for."""
    return telemetry_without_consent(tmp_path_factory.mktemp("base"))


def draft_of(base: Path, folder: Path, change: Mapping[str, str], added: str = "") -> Path:
    """Makes a draft: the set with texts replaced in its rules about telemetry of work, and lines added."""
    draft = folder / "draft"
    shutil.copytree(base, draft)
    text = (draft / MCI).read_text(encoding="utf-8")
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new, 1)
    (draft / MCI).write_text(text + added, encoding="utf-8")
    return draft


def told(*arguments: str | Path, cwd: Path = ROOT) -> tuple[int, dict[str, Any]]:
    """Returns the exit code and the JSON of a comparison."""
    done = gatebook("policy", "diff", *map(str, arguments), "--json", cwd=cwd)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_rule_for_everybody_is_a_gain_by_name(base: Path, tmp_path: Path) -> None:
    """Who gains is counted, and one is named with the new step and a request that both revisions answer differently."""
    code, impact = told(base, draft_of(base, tmp_path, {}, OPENED))
    change = max(impact["changes"], key=lambda it: it["count"].get("people_certain", 0))
    example = change["example"]
    steps = example["counterexample"]["path"]

    assert code == 1
    assert impact["gaining"] == {"people_certain": 18}
    assert impact["losing"] == {}
    assert (change["dataset"], change["action"], change["gained"]) == ("mci.prompts", "read", ["ASPECT_ACCESS"])
    assert (change.get("before", {}), change["after"]["rows"]) == ({}, "True")
    assert [steps[place]["text"] for place in example["new_steps"]] == [OPENED.strip()]
    assert example["counterexample"]["confirmed"]


def test_nobody_gains_by_a_narrower_rule_and_the_exit_code_says_so(base: Path, tmp_path: Path) -> None:
    """A deny for everybody is a loss alone: 0, or 1 where any change is asked to fail."""
    draft = draft_of(base, tmp_path, {}, OPENED.replace("allow", "deny"))
    code, impact = told(base, draft)

    assert code == 0
    assert impact["gaining"] == {}
    assert impact["losing"]["people_certain"] == 2
    assert told(base, draft, "--fail-on", "change")[0] == 1
    assert told(base, base, "--fail-on", "change")[0] == 0
    assert told(draft, base, "--fail-on", "never")[0] == 0


def test_a_weaker_mask_is_a_gain_and_a_stricter_one_is_none(base: Path, tmp_path: Path) -> None:
    """A mask is compared by what it shows, and the rule that hid more is named as what is no more in the way."""
    rule = "mci.prompts.prompt_text, read, model_training, True, regex:[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:(address)"
    weaker = draft_of(base, tmp_path / "weaker", {rule: f"{rule.partition(' True, ')[0]} True, none"})
    stricter = draft_of(base, tmp_path / "stricter", {rule: f"{rule.partition(' True, ')[0]} True, nullify"})
    code, impact = told(base, weaker)
    [change] = impact["changes"]

    assert (code, told(base, stricter)[0]) == (1, 0)
    assert (change["gained"], change["columns"], change["subjects"]) == (["ASPECT_MASKS"], ["prompt_text"], ["farah"])
    assert change["example"]["counterexample"]["confirmed"]
    assert [step["text"] for step in change["example"]["obstacles"]] == [f"p2, role:mci_researcher, {rule}"]


def test_it_holds_on_another_set(tmp_path: Path) -> None:
    """The set of the clinic, against itself without its first deny or its last rule."""
    draft = tmp_path / "clinic"
    shutil.copytree(CLINIC, draft)
    path = draft / "policy.csv"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.startswith("p, ")]
    path.write_text(path.read_text(encoding="utf-8").replace(lines[0], ""), encoding="utf-8")
    forth, back = told(CLINIC, draft)[1], told(draft, CLINIC)[1]

    assert bool(forth["losing"]) is bool(back["gaining"])
    assert forth["losing"]
    assert told(CLINIC, CLINIC)[1]["gaining"] == {}


def test_people_read_it_with_the_way(base: Path, tmp_path: Path) -> None:
    """The text groups what the same people gain, and ends with how many."""
    done = gatebook("policy", "diff", str(base), str(draft_of(base, tmp_path, {}, OPENED)))

    assert re.search(
        r"^  new  policy/mci\.csv:\d+  p, role:employee, mci\.prompts", done.stdout.replace("    ", ""), re.MULTILINE
    )
    assert done.stdout.splitlines()[-1] == "gained by 18 people; lost by nobody"


class TestGit:
    """Sides that are states of a git repository."""

    @pytest.fixture
    def repository(self, base: Path, tmp_path: Path) -> Path:
        """A repository whose first commit is the set, and whose second opens prompts to everybody."""
        root = tmp_path / "repository"
        shutil.copytree(base, root / "sets" / "telemetry")
        git(root.parent, "init", "--quiet", str(root))
        (root / ".gitattributes").write_text("*.csv export-ignore\n*.yaml export-subst\n", encoding="utf-8")
        commit(root, "first")
        with (root / "sets" / "telemetry" / MCI).open("a", encoding="utf-8") as file:
            file.write(OPENED)
        commit(root, "second")
        return root

    def test_a_commit_is_compared_with_another_and_with_a_folder(self, base: Path, repository: Path) -> None:
        """Bytes are those that git holds, the directory that of the newer commit; nothing is checked out."""
        commits = told("HEAD~1:sets/telemetry", "HEAD:sets/telemetry", cwd=repository)
        shortly = told("HEAD~1", "HEAD", "--policy-set", "sets/telemetry", cwd=repository)
        worktree = told("HEAD~1:sets/telemetry/", "sets/telemetry", cwd=repository)

        assert [code for code, _ in (commits, shortly, worktree)] == [1, 1, 1]
        assert commits[1] == shortly[1] == worktree[1]
        assert commits[1]["old_digest"] == told(base, base)[1]["old_digest"]

    def test_a_set_that_is_the_whole_repository(self, base: Path, tmp_path: Path) -> None:
        """The root of a repository is named as a folder is."""
        root = tmp_path / "root"
        shutil.copytree(base, root)
        git(tmp_path, "init", "--quiet", str(root))
        commit(root, "all")

        assert told("HEAD", root, "--policy-set", root)[0] == 0

    @pytest.mark.parametrize("side", ["nowhere:sets/telemetry", "HEAD:sets", "--output=x:sets/telemetry", "HEAD:none"])
    def test_what_git_does_not_have_is_said(self, repository: Path, side: str) -> None:
        """A state that is none ends with 1 and a message; what looks like an option is none."""
        done = gatebook("policy", "diff", "--", side, "sets/telemetry", cwd=repository)

        assert done.returncode == 1
        assert done.stderr.startswith("gatebook: ")
        assert not (repository / "x").exists()


def git(where: Path, *arguments: str) -> None:
    """Runs git as nobody in particular."""
    person = {"GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": "n@example.org"}
    person |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in person.items()}
    environment = {**os.environ, **person, "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", *arguments], cwd=where, check=True, env=environment)


def commit(root: Path, message: str) -> None:
    """Commits everything."""
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", message)


class TestServer:
    """Revisions of a server, and drafts against them."""

    @pytest.fixture(scope="class")
    def server(self, tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[RunningServer]:
        """A server of the set with its directory."""
        with serving(tmp_path_factory.mktemp("served"), [base]) as server:
            yield server

    def test_a_draft_and_a_revision_are_compared_under_its_directory(
        self, server: RunningServer, base: Path, tmp_path: Path
    ) -> None:
        """The server says of a draft what the command says of both folders; a revision is named in three ways."""
        draft = draft_of(base, tmp_path, {}, OPENED)
        here = told(base, draft)[1]
        ask = ("--target", server.target)
        there = [told(name, draft, *ask) for name in ("active", "1", here["old_digest"], here["old_digest"][:12])]

        assert {code for code, _ in there} == {1}
        assert all(impact == there[0][1] for _, impact in there)
        assert (there[0][1]["gaining"], there[0][1]["digest"]) == (here["gaining"], here["digest"])
        assert told("1", "active", *ask)[1]["gaining"] == {}
        assert gatebook("policy", "diff", "7", "active", *ask).returncode == 2
        assert gatebook("policy", "diff", str(base), "1", *ask).returncode == 2

    def test_that_it_was_asked_is_in_the_book(self, server: RunningServer) -> None:
        """The answer names people, so that there is an entry of it, with who asked and about which revision."""
        impact = told("active", "active", "--target", server.target)[1]
        listed = gatebook("audit", "list", "--target", server.target, "--kind", "policy", "--json", check=True).stdout

        assert "POLICY_STEP_COMPARED" in listed
        assert impact["new_digest"] in listed

    def test_what_cannot_be_compared_is_refused(self, server: RunningServer) -> None:
        """An unknown revision, a limit beyond the most, and a draft beside a digest have their codes."""
        with server.channel() as channel:
            stub = PolicyServiceStub(channel)
            codes = [
                refused(stub, pb.DiffPolicySetRequest(old_digest="0" * 64)),
                refused(stub, pb.DiffPolicySetRequest(changes_max=1_001)),
                refused(stub, pb.DiffPolicySetRequest(new_digest="0" * 64, files=[pb.PolicyFile(path="model.conf")])),
                refused(
                    stub, pb.DiffPolicySetRequest(policy_set="telemetry", files=[pb.PolicyFile(path="model.conf")])
                ),
            ]

        assert codes == ["NOT_FOUND", "INVALID_ARGUMENT", "INVALID_ARGUMENT", "FAILED_PRECONDITION"]


def refused(stub: PolicyServiceStub, request: pb.DiffPolicySetRequest) -> str:
    """Returns the code with which a request is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.DiffPolicySet(request, timeout=30)
    return str(caught.value.code().name)


def test_aspects_have_the_same_numbers_everywhere() -> None:
    """The numbers of messages are those of the analysis."""
    assert {f"ASPECT_{aspect.name}": aspect.value for aspect in Aspect} == {
        name: number for name, number in pb.Aspect.items() if number
    }


class Page(HTMLParser):
    """What a browser would find in a page: elements with their attributes, and text."""

    def __init__(self, text: str) -> None:
        """Reads a page."""
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Notes a text."""
        self.said.append(data)


HOSTILE = (
    """<script>document.title='owned'</script>"><img src=x onerror=alert(1)>' onload='alert(1) </style></title>]]>"""
)
TAGS = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "h2",
        "h3",
        "p",
        "code",
        "div",
        "b",
        "span",
        "section",
        "table",
        "tr",
        "th",
        "td",
        "br",
        "details",
        "summary",
        "pre",
        "footer",
        "svg",
        "desc",
        "text",
        "rect",
        "line",
        "defs",
        "marker",
        "path",
    ]
)


def hostile() -> pb.Impact:
    """Returns an impact of which every text is hostile."""
    step = pb.PathStep(text=HOSTILE, file=HOSTILE, line=1)
    count = pb.ImpactCount(people_certain=3, people_possible=1, people_own_rows=1, services=1)
    access = pb.ImpactAccess(rows=HOSTILE, masks=[HOSTILE], minimum_group=5)
    shown = pb.Counterexample(subject=HOSTILE, subject_type=HOSTILE, path=[step, step], caller=HOSTILE, why_not=HOSTILE)
    shown.request.subject.id = HOSTILE
    change = pb.AccessChange(
        dataset=HOSTILE,
        action=HOSTILE,
        columns=[HOSTILE],
        purposes=[HOSTILE],
        before=access,
        after=access,
        count=count,
        subjects=[HOSTILE],
        subjects_left_out=1,
        roles=[pb.ImpactRole(role=HOSTILE, people=1)],
        example=pb.ImpactExample(counterexample=shown, new_steps=[0, 1], obstacles=[step]),
    )
    gained, lost = pb.AccessChange(), pb.AccessChange()
    gained.MergeFrom(change)
    lost.MergeFrom(change)
    gained.gained.append(pb.ASPECT_ACCESS)
    lost.lost.append(pb.ASPECT_ACCESS)
    return pb.Impact(
        policy_set=HOSTILE,
        old_digest=HOSTILE,
        new_digest=HOSTILE,
        directory_digest=HOSTILE,
        digest=HOSTILE,
        people=3,
        gaining=count,
        losing=count,
        changes=[gained, lost],
        tallies=[pb.ImpactTally(dataset=HOSTILE, role=role, gaining=count) for role in ("", HOSTILE)],
        set_changes=[pb.SetChange(what=HOSTILE, message=HOSTILE, file=HOSTILE, dataset=HOSTILE)],
    )


def test_a_report_holds_hostile_names_as_text_alone() -> None:
    """Names with markup make no element, no attribute and no script; the page loads nothing."""
    page = Page(report_of(hostile(), HOSTILE, HOSTILE))
    names = {name for _, attributes in page.elements for name in attributes}

    assert {tag for tag, _ in page.elements} <= TAGS
    assert not {name for name in names if name.startswith("on")}
    assert not names & {"src", "href", "srcset", "data", "action"}
    assert any("<script>" in said for said in page.said)
    assert "default-src 'none'" in str(page.elements)


def test_a_report_shows_who_gains_what_and_the_way(base: Path, tmp_path: Path) -> None:
    """The page names who gains what, has both pictures with titles, and the same as text and tables."""
    draft = draft_of(base, tmp_path, {}, OPENED)
    done = gatebook("policy", "diff", str(base), str(draft), "--html", str(tmp_path / "report.html"))
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    said = " ".join(page.said)

    assert done.returncode == 1
    assert [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"][:2] == [
        "Who gains what",
        "The way of noor to mci.prompts",
    ]
    assert "18 people would gain something." in said
    assert OPENED.strip() in said
