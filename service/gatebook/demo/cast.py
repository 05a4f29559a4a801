"""Who wants to read in the demo: each actor, its questions, and the answers that the telemetry set promises.

The cast is the old world's: everybody who once could read everything. The reasons are part of the promise.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final

from gatebook.demo.question import Actor, Question

LAST_WEEK: Final = "ts >= TIMESTAMPTZ '2026-06-16 00:00:00+00'"
SINCE_LAST_WEEK: Final = (("ts", ">=", datetime(2026, 6, 16, tzinfo=UTC)),)
PROMPTS, USAGE, REVIEWS = "mci.prompts", "ai_usage.token_usage", "hr.performance_metrics"
TEAM_DASHBOARD = "adoption_visualisation.team_dashboard"
EXPOSURE_REVIEW = "security_investigation.exposure_review"

NOOR = Actor(
    name="noor",
    title="noor, an ordinary employee",
    subject="noor",
    wants="curious what colleagues ask the assistants; until now, nothing stopped her",
    questions=(
        Question(dataset=PROMPTS, columns=("subject_id", "prompt_text"), expected="PURPOSE_REQUIRED"),
        Question(
            dataset=PROMPTS,
            columns=("subject_id", "prompt_text"),
            purpose="model_training",
            expected="NO_MATCHING_RULE",
        ),
        Question(dataset="mci.prompts_copy", columns=(), purpose="model_training", expected="UNCATALOGUED"),
        Question(
            dataset=USAGE,
            columns=("ts", "tool", "tokens_in", "cost_usd"),
            purpose="subject_access",
            where="subject_id = 'noor'",
        ),
    ),
)
NOOR_AGAIN = Actor(
    name="noor-again",
    title="noor, once more",
    subject="noor",
    wants="asks for everybody's prompts, and gets when something of her own lay open",
    questions=(
        Question(
            dataset=PROMPTS,
            columns=("subject_id", "ts", "tool"),
            purpose=EXPOSURE_REVIEW,
            where="subject_id = 'noor'",
        ),
    ),
)
"""She asks when the rules have changed, after everybody else."""
LEADERBOARD = Actor(
    name="leaderboard",
    title="the rogue leaderboard, built by lee over a weekend",
    subject="svc-leaderboard-lee",
    type="service",
    wants="ranks every colleague by tokens, and tries one purpose after the other",
    questions=(
        Question(
            dataset=USAGE,
            columns=("subject_id", "tokens_in"),
            purpose="adoption_visualisation.leaderboard",
            expected="NO_MATCHING_RULE",
        ),
        Question(
            dataset=USAGE,
            columns=("subject_id", "tokens_in"),
            purpose="recognition.badge",
            expected="PURPOSE_NOT_PERMITTED",
        ),
        Question(dataset=USAGE, columns=("team_id", "tokens_in"), purpose=TEAM_DASHBOARD, expected="NO_MATCHING_RULE"),
    ),
)
DASHBOARD = Actor(
    name="dashboard",
    title="the dashboard of AI use",
    subject="svc-dashboard",
    type="service",
    wants="shows how teams take to the tools",
    questions=(
        Question(dataset=USAGE, columns=("prompt_id",), purpose=TEAM_DASHBOARD, expected="DENIED_BY_RULE"),
        Question(
            dataset=USAGE,
            columns=("subject_id", "ts", "team_id", "tokens_in"),
            purpose=TEAM_DASHBOARD,
            where=LAST_WEEK,
            wanted=SINCE_LAST_WEEK,
            by=("team_id",),
            measures={"people": ("distinct", "subject_id"), "uses": ("count", "*"), "tokens": ("sum", "tokens_in")},
        ),
    ),
)
KAI = Actor(
    name="leadership",
    title="kai, the vice president",
    subject="kai",
    wants="first the ranking of people, then the figures of teams",
    questions=(
        Question(
            dataset=USAGE,
            columns=("subject_id", "tokens_in"),
            purpose=TEAM_DASHBOARD,
            expected="PURPOSE_NOT_GRANTED",
        ),
        Question(
            dataset="ai_usage.team_daily",
            columns=("day", "team_id", "tool", "active_subjects", "tokens_total"),
            purpose=TEAM_DASHBOARD,
            where="day = DATE '2026-06-18'",
            wanted=(("day", "=", date(2026, 6, 18)),),
        ),
    ),
)
FINANCE = Actor(
    name="finance",
    title="fiona, who pays the bill",
    subject="fiona",
    wants="what the tools cost: by organisation, then by person",
    questions=(
        Question(
            dataset=USAGE,
            columns=("subject_id", "ts", "org_id", "cost_usd"),
            purpose="cost_management",
            where=LAST_WEEK,
            wanted=SINCE_LAST_WEEK,
            by=("org_id",),
            measures={"people": ("distinct", "subject_id"), "cost_usd": ("sum", "cost_usd")},
        ),
        Question(
            dataset=USAGE,
            columns=("subject_id", "ts", "cost_usd"),
            purpose="cost_management",
            where=LAST_WEEK,
            wanted=SINCE_LAST_WEEK,
            by=("subject_id",),
            measures={"uses": ("count", "*"), "cost_usd": ("sum", "cost_usd")},
        ),
        Question(
            dataset=USAGE,
            columns=("subject_id", "cost_usd"),
            purpose="cost_management",
            action="export",
            expected="NO_MATCHING_RULE",
        ),
    ),
)
HR = Actor(
    name="hr",
    title="the HR tool, for eli",
    subject="eli",
    wants="wants use of AI in the reviews, as the rumour had it",
    questions=(
        Question(
            dataset=USAGE,
            columns=("subject_id", "tokens_in"),
            purpose="performance_evaluation",
            expected="PURPOSE_NOT_PERMITTED",
        ),
        Question(
            dataset=REVIEWS,
            columns=("subject_id", "rating", "narrative_text", "ai_usage_note"),
            purpose="performance_evaluation.review",
        ),
    ),
)
MANAGER = Actor(
    name="manager",
    title="dana, a manager",
    subject="dana",
    wants="asks for every review, and gets those of her own people; then she tries that of eli, who is none",
    questions=(
        Question(
            dataset=REVIEWS,
            columns=("subject_id", "rating", "narrative_text"),
            purpose="performance_evaluation.review",
            where="manager_id = 'dana'",
            shows_sql=True,
        ),
        Question(
            dataset=REVIEWS,
            columns=("subject_id", "rating", "narrative_text"),
            purpose="performance_evaluation.review",
            row={"subject_id": "eli", "manager_id": "kai"},
            expected="NO_MATCHING_RULE",
        ),
    ),
)
TRAINING = Actor(
    name="training",
    title="the training job",
    subject="svc-train",
    type="service",
    wants="features of recorded work; its rule allows it, but nobody has agreed yet",
    questions=(
        Question(
            dataset="mlops.training_features",
            columns=("session_id", "action_seq"),
            purpose="model_training.feature_extraction",
            expected="CONSENT_REQUIRED",
        ),
    ),
)
RESEARCHER = Actor(
    name="researcher",
    title="farah, a researcher of the programme",
    subject="farah",
    wants="keystrokes to train on; then activity, to judge whether the programme keeps its word",
    questions=(
        Question(
            dataset="mci.keystroke_events",
            columns=("subject_id", "ts", "key_text"),
            purpose="model_training",
            expected="CONSENT_REQUIRED",
        ),
        Question(
            dataset="mci.source_activity",
            columns=("subject_id", "ts", "title", "body_excerpt"),
            purpose="program_assessment",
            shows_sql=True,
        ),
    ),
)
NOTEBOOK = Actor(
    name="notebook",
    title="farah's old notebook, which runs its own SQL",
    subject="farah",
    wants="the very same question; but it would not do what the answer asks of it",
    questions=(
        Question(
            dataset="mci.source_activity",
            columns=("subject_id", "ts", "title", "body_excerpt"),
            purpose="program_assessment",
            plans=False,
            expected="OBLIGATION_NOT_SUPPORTED",
        ),
    ),
)
RESPONDER = Actor(
    name="responder",
    title="ivan, an incident responder",
    subject="ivan",
    wants="finds out whose prompts lay open: who and when, never what",
    questions=(
        Question(dataset=PROMPTS, columns=("subject_id", "ts", "tool", "prompt_text"), purpose=EXPOSURE_REVIEW),
    ),
)
ADMINISTRATOR = Actor(
    name="administrator",
    title="omar, who runs the platform",
    subject="omar",
    wants="holds every key of the machine room, and none of the gate",
    questions=(
        Question(
            dataset=PROMPTS, columns=("subject_id", "prompt_text"), purpose=EXPOSURE_REVIEW, expected="DENIED_BY_RULE"
        ),
    ),
)

CAST: Final = (
    *(NOOR, LEADERBOARD, DASHBOARD, KAI, FINANCE, HR),
    *(MANAGER, TRAINING, RESEARCHER, NOTEBOOK, RESPONDER, ADMINISTRATOR),
)
"""In the order of their appearance."""
