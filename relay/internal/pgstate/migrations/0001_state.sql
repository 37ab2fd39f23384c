-- The state of a relay that several hosts share.
create schema if not exists azs_courier;

create table azs_courier.migrations (
	version integer primary key,
	applied timestamptz not null default now()
);

-- The journal: the same bytes as in journal.jsonl, one row a line. added marks the
-- attempt that put the line in, so that a relay which lost its connection can tell
-- its own line from an equal one of another.
create table azs_courier.lines (
	n     bigint primary key check (n > 0),
	line  bytea not null,
	added bytea not null
);

create table azs_courier.bundles (
	name text collate "C" primary key,
	data bytea not null
);

-- identity.age, card.azc, peers/LABEL.peer.
create table azs_courier.files (
	name text collate "C" primary key,
	data bytea not null
);

-- Who holds a claim, for messages, and the token by which a relay that reconnects
-- sees whether the claim was another's meanwhile. What holds others off is the
-- session's advisory lock, not the row.
create table azs_courier.claims (
	key    text primary key,
	token  bytea not null,
	holder text not null,
	since  timestamptz not null default now()
);

-- Lines and kept bundles are only added. Who owns the tables can drop the
-- triggers: they stop mistakes, the chain shows the rest.
create function azs_courier.only_added() returns trigger language plpgsql as $$
begin
	raise exception '% of %.% is refused: it is only added to', tg_op, tg_table_schema, tg_table_name
		using errcode = 'insufficient_privilege';
end $$;

create trigger only_added before update or delete or truncate on azs_courier.lines
	for each statement execute function azs_courier.only_added();
create trigger only_added before update or delete or truncate on azs_courier.bundles
	for each statement execute function azs_courier.only_added();
