-- Fills the tables of the telemetry catalogue. Run by `store.py`, statement by statement, which sets the
-- variables `seed`, `scale`, `now` (seconds since the epoch), one list of texts for each file of `words/`, and
-- the tables `people(n, id, name, team, org, country, manager)` and `holders(role, n, id)`, both numbered from 0.

-- Draws a lot from 0 to n - 1: MD5 is the same in every version of every engine.
CREATE TEMP MACRO lot(salt, i, n) AS (md5_number_lower(concat(getvariable('seed'), salt, ':', i)) % n)::BIGINT;

CREATE TEMP MACRO id_of(salt, i) AS md5(concat(getvariable('seed'), salt, ':', i))::UUID;

CREATE TEMP MACRO rows(n) AS TABLE SELECT range AS i FROM range((n * getvariable('scale'))::BIGINT);

-- A time within working hours of one of the last `days` days.
CREATE TEMP MACRO moment(salt, i, days) AS
    getvariable('now') - lot(concat(salt, 'day'), i, days) * 86400 - lot(concat(salt, 'second'), i, 32400);

-- A text with its blanks filled: `#` by a number, `@who` by a colleague.
CREATE TEMP MACRO filled(salt, i, lines) AS replace(replace(
    lines[1 + lot(salt, i, len(lines))],
    '#', (2 + lot(concat(salt, '#'), i, 48))::VARCHAR),
    '@who', getvariable('colleagues')[1 + lot(concat(salt, '@'), i, len(getvariable('colleagues')))]);

CREATE TEMP MACRO one_of(salt, i, choices) AS choices[1 + lot(salt, i, len(choices))];

-- Who is recorded: the named people and every twentieth employee.
CREATE TEMP TABLE recorded AS
    SELECT row_number() OVER (ORDER BY n) - 1 AS r, id, country FROM people WHERE n < 19 OR n % 20 = 0;

CREATE TEMP TABLE sessions AS
    SELECT i AS s, id AS subject_id, country, id_of('session', i) AS session_id, moment('session', i, 21) AS start
    FROM rows(600)
    JOIN recorded ON r = CASE WHEN i < 57 THEN i % 19 ELSE lot('session', i, (SELECT count(*) FROM recorded)) END;

-- Every use of an AI tool. A team has a favourite tool; most people use one on most days.
INSERT INTO ai_usage.token_usage BY NAME
    SELECT
        id_of('usage', d * 1000000 + n) AS usage_id, id AS subject_id, team AS team_id, org AS org_id,
        to_timestamp(getvariable('now') - d * 86400 - lot('usage', d * 1000000 + n, 32400)) AS ts,
        CASE WHEN lot('own tool', n, 5) = 0 THEN one_of('tool', n, ['chatgpt', 'claude', 'internal-assistant'])
            ELSE one_of('tool', team, ['chatgpt', 'claude', 'internal-assistant']) END AS tool,
        one_of('model', d * 1000000 + n, ['large', 'medium', 'medium', 'small']) AS model,
        (120 + lot('in', d * 1000000 + n, 120) * lot('more', n, 60)) AS tokens_in,
        (80 + lot('out', d * 1000000 + n, 90) * lot('more', n, 60)) AS tokens_out,
        round((tokens_in + 3 * tokens_out) / 250000.0, 4) AS cost_usd,
        id_of('prompt', d * 1000000 + n) AS prompt_id
    FROM people, range(14) AS days(d)
    WHERE lot('uses', d * 1000000 + n, 100) < 55 AND n < count_people() * getvariable('scale') + 19
    ORDER BY ts, usage_id;

-- The prompts of those who are recorded, and of some others.
INSERT INTO mci.prompts BY NAME
    SELECT
        prompt_id, subject_id, ts, tool, model, tokens_in, tokens_out,
        id_of('conversation', concat(subject_id, ts::DATE)) AS conversation_id,
        filled('prompt', prompt_id, getvariable('prompts')) AS prompt_text,
        filled('answer', prompt_id, getvariable('answers')) AS response_text
    FROM ai_usage.token_usage
    WHERE subject_id IN (SELECT id FROM recorded) OR lot('kept', prompt_id, 3) = 0
    ORDER BY ts, prompt_id;

-- What teams of ten or more did in a day; the smaller ones of an organisation are taken together, or left out.
INSERT INTO ai_usage.team_daily BY NAME
    WITH active AS (
        SELECT ts::DATE AS day, org_id, team_id, tool, subject_id, tokens_in + tokens_out AS tokens, cost_usd,
            (SELECT count(DISTINCT peer.subject_id) FROM ai_usage.token_usage AS peer
             WHERE peer.ts::DATE = usage.ts::DATE AND peer.team_id = usage.team_id AND peer.tool = usage.tool) AS group_size
        FROM ai_usage.token_usage AS usage
    )
    SELECT day, org_id, CASE WHEN group_size >= 10 THEN team_id END AS team_id, tool,
        count(DISTINCT subject_id) AS active_subjects, sum(tokens) AS tokens_total, sum(cost_usd) AS cost_usd
    FROM active
    GROUP BY ALL
    HAVING active_subjects >= 10
    ORDER BY day, org_id, team_id, tool;

INSERT INTO ai_usage.leaderboard BY NAME
    SELECT
        '2026-06' AS period, people.id AS subject_id, people.name AS display_name,
        coalesce(sum(tokens_in + tokens_out), 0) AS tokens_total,
        row_number() OVER (ORDER BY tokens_total DESC, people.id) AS rank,
        CASE WHEN rank <= 3 THEN 'gold' WHEN rank <= 10 THEN 'silver' ELSE 'bronze' END AS badge
    FROM holders JOIN people ON people.id = holders.id LEFT JOIN ai_usage.token_usage ON subject_id = people.id
    WHERE role = 'role:leaderboard_member'
    GROUP BY people.id, people.name
    ORDER BY rank;

INSERT INTO mci.keystroke_events BY NAME
    SELECT
        id_of('key', i) AS event_id, session_id, subject_id,
        to_timestamp(start + (i // (600 * getvariable('scale'))) * 0.31) AS ts,
        one_of('app', s, getvariable('apps')) AS app,
        filled('window', s * 10 + i % 3, getvariable('window_titles')) AS window_title,
        (32 + lot('code', i, 90))::INTEGER AS key_code,
        lot('secure', i, 40) = 0 AS is_secure_field,
        CASE WHEN is_secure_field THEN md5(concat('secret', i))[1:2] ELSE filled('keys', i, getvariable('keys')) END AS key_text,
        (40 + lot('pause', i, 400))::INTEGER AS inter_key_ms,
        country AS jurisdiction, 1 AS notice_version
    FROM rows(80000) JOIN sessions ON s = i % (600 * getvariable('scale'))::BIGINT
    ORDER BY ts, event_id;

INSERT INTO mci.pointer_events BY NAME
    SELECT
        id_of('pointer', i) AS event_id, session_id, subject_id,
        to_timestamp(start + (i // (600 * getvariable('scale'))) * 0.47) AS ts,
        one_of('kind', i, ['move', 'move', 'move', 'click', 'scroll']) AS kind,
        lot('x', i, 2560)::INTEGER AS x, lot('y', i, 1440)::INTEGER AS y,
        CASE WHEN kind = 'click' THEN one_of('button', i, ['left', 'left', 'left', 'right']) END AS button,
        filled('target', i, getvariable('targets')) AS target_element,
        one_of('app', s, getvariable('apps')) AS app
    FROM rows(60000) JOIN sessions ON s = i % (600 * getvariable('scale'))::BIGINT
    ORDER BY ts, event_id;

INSERT INTO mci.screen_frames BY NAME
    SELECT
        id_of('frame', i) AS frame_id, session_id, subject_id,
        to_timestamp(start + (i // (600 * getvariable('scale'))) * 30) AS ts,
        concat('s3://frames/', session_id, '/', i, '.webp') AS image_uri,
        filled('ocr', i, getvariable('ocr')) AS ocr_text,
        one_of('app', s, getvariable('apps')) AS app,
        concat('https://intranet.example/', one_of('path', i, ['tickets', 'wiki', 'reports']), '?q=', lot('q', i, 9999)) AS url,
        lot('third', i, 5) = 0 AS contains_third_party,
        one_of('redaction', i, ['raw', 'redacted', 'redacted']) AS redaction_state
    FROM rows(6000) JOIN sessions ON s = i % (600 * getvariable('scale'))::BIGINT
    ORDER BY ts, frame_id;

INSERT INTO mci.transcripts BY NAME
    SELECT
        id_of('transcript', i) AS transcript_id, host.id AS host_id,
        list(guest.id ORDER BY guest.n) AS participant_ids,
        to_timestamp(moment('meeting', i, 30)) AS ts, concat('meeting-', i) AS meeting_ref,
        filled('said', i, getvariable('transcripts')) || ' ' || filled('then', i, getvariable('transcripts')) AS transcript_text,
        concat('s3://meetings/', i, '.opus') AS audio_uri
    FROM rows(2000)
    JOIN people AS host ON host.n = lot('host', i, count_people())
    JOIN people AS guest ON guest.n BETWEEN host.n - 1 - lot('guests', i, 5) AND host.n + 2 AND guest.n <> host.n
    GROUP BY i, host.id
    ORDER BY ts, transcript_id;

INSERT INTO mci.private_conversations BY NAME
    SELECT
        id_of('message', i) AS message_id, id_of('thread', i // 6) AS thread_id, sender.id AS sender_id,
        list(recipient.id ORDER BY recipient.n) AS recipient_ids,
        to_timestamp(moment('message', i, 14)) AS ts,
        filled('message', i, getvariable('messages')) AS body,
        one_of('channel', i // 6, ['slack', 'slack', 'internal']) AS source
    FROM rows(12000)
    JOIN people AS sender ON sender.n = (lot('thread', i // 6, count_people() - 4) + i % 2)
    JOIN people AS recipient
        ON recipient.n BETWEEN lot('thread', i // 6, count_people() - 4)
            AND lot('thread', i // 6, count_people() - 4) + 1 + lot('party', i // 6, 3)
        AND recipient.n <> sender.n
    GROUP BY i, sender.id
    ORDER BY ts, message_id;

INSERT INTO mci.source_activity BY NAME
    SELECT
        id_of('activity', i) AS activity_id, id AS subject_id, to_timestamp(moment('activity', i, 60)) AS ts,
        one_of('source', i, ['github', 'slack', 'atlassian']) AS source,
        CASE source WHEN 'github' THEN concat('repo-', lot('repo', i, 40), '/pull/', lot('pull', i, 900))
            WHEN 'slack' THEN concat('channel-', lot('channel', i, 200))
            ELSE concat('TASK-', lot('task', i, 4000)) END AS object_ref,
        CASE source WHEN 'github' THEN one_of('act', i, ['opened', 'reviewed', 'merged'])
            WHEN 'slack' THEN 'posted' ELSE one_of('act', i, ['created', 'commented', 'closed']) END AS action,
        filled('title', i, getvariable('titles')) AS title,
        filled('excerpt', i, getvariable('excerpts')) AS body_excerpt
    FROM rows(40000) JOIN people ON n = lot('author', i, count_people())
    ORDER BY ts, activity_id;

INSERT INTO hr.performance_metrics BY NAME
    SELECT
        id AS subject_id, '2026-H1' AS cycle, (1 + (lot('rating', n, 5) + lot('luck', n, 5)) // 2)::INTEGER AS rating,
        manager AS manager_id,
        filled('narrative', n, getvariable('narratives')) AS narrative_text,
        filled('note', n, getvariable('ai_notes')) AS ai_usage_note
    FROM people
    WHERE manager <> ''
    ORDER BY n;

INSERT INTO hr.promotion_signals BY NAME
    SELECT
        people.id AS subject_id, '2026-H1' AS cycle,
        one_of('band', people.n, ['low', 'middle', 'high']) AS adoption_band,
        concat('case-', people.n) AS evidence_ref,
        one_of('decision', people.n, ['promoted', 'deferred', 'deferred', 'open']) AS decision,
        committee.id AS decided_by
    FROM people
    JOIN holders AS committee ON committee.role = 'role:promo_committee'
        AND committee.n = lot('judge', people.n, (SELECT count(*) FROM holders WHERE role = 'role:promo_committee'))
    WHERE lot('candidate', people.n, 100) < 7
    ORDER BY people.n;

INSERT INTO hr.award_submissions BY NAME
    SELECT
        id_of('idea', i) AS submission_id, id AS subject_id, to_timestamp(moment('idea', i, 45)) AS ts,
        filled('idea', i, getvariable('ideas')) AS idea_text,
        CASE WHEN lot('prize', i, 30) = 0 THEN 2500 ELSE 0 END AS prize_usd
    FROM rows(300) JOIN people ON n = lot('inventor', i, count_people())
    ORDER BY ts, submission_id;

INSERT INTO mlops.training_features BY NAME
    SELECT
        id_of('feature', i) AS feature_id, md5(concat(getvariable('seed'), 'pseudonym', subject_id)) AS subject_pseudo, session_id,
        concat('["', one_of('first', i, getvariable('apps')), '","', one_of('next', i, getvariable('apps')), '","',
            one_of('last', i, getvariable('apps')), '"]')::JSON AS action_seq,
        1 AS consent_epoch
    FROM rows(5000) JOIN sessions ON s = i % (600 * getvariable('scale'))::BIGINT
    ORDER BY feature_id;

INSERT INTO gov.decisions BY NAME
    SELECT
        i AS seq, to_timestamp(getvariable('now') - 1814400 + i * 600) AS ts,
        one_of('actor', i, ['role:mci_researcher', 'role:dashboard', 'role:finops', 'role:employee', 'role:hrbp']) AS actor_role,
        id AS subject_ref,
        one_of('dataset', i, ['mci.prompts', 'ai_usage.token_usage', 'ai_usage.team_daily', 'hr.performance_metrics']) AS dataset,
        one_of('columns', i, [['subject_id', 'ts'], ['cost_usd'], ['rating', 'narrative_text']]) AS columns,
        one_of('purpose', i, ['model_training', 'cost_management', 'adoption_visualisation', 'subject_access']) AS purpose,
        one_of('outcome', i, ['ALLOWED', 'ALLOWED', 'NO_MATCHING_RULE', 'PURPOSE_NOT_PERMITTED', 'CONSENT_REQUIRED']) AS outcome,
        md5('revision') AS revision, md5(concat('proof', i)) AS proof
    FROM rows(3000) JOIN people ON n = lot('about', i, count_people())
    ORDER BY seq;
