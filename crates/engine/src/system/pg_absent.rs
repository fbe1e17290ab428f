//! Catalogs of things that do not exist here. Clients join them all the same, so they are there, and always empty; the
//! rewriting of queries relies on that.

use super::relation::SystemRelation;

const fn absent(name: &'static str, columns: &'static str) -> SystemRelation {
    SystemRelation {
        schema: "pg_catalog",
        name,
        columns,
        rows: None,
    }
}

pub(super) const RELATIONS: &[SystemRelation] = &[
    absent(
        "pg_policy",
        "oid oid, polname name, polrelid oid, polcmd char, polpermissive bool, polroles oid[], polqual text, polwithcheck text",
    ),
    absent(
        "pg_trigger",
        "oid oid, tableoid oid = 0, tgrelid oid, tgparentid oid, tgname name, tgfoid oid, tgtype int2, tgenabled char, tgisinternal bool, \
         tgconstrrelid oid, tgconstrindid oid, tgconstraint oid, tgdeferrable bool, tginitdeferred bool, tgnargs int2, \
         tgattr int2[], tgargs text, tgqual text, tgoldtable name, tgnewtable name",
    ),
    absent(
        "pg_rewrite",
        "oid oid, tableoid oid = 0, rulename name, ev_class oid, ev_type char, ev_enabled char, is_instead bool, ev_qual text, ev_action text",
    ),
    absent(
        "pg_inherits",
        "inhrelid oid, inhparent oid, inhseqno int4, inhdetachpending bool",
    ),
    absent(
        "pg_partitioned_table",
        "partrelid oid, partstrat char, partnatts int2, partdefid oid, partattrs int2[], partclass oid[], partcollation oid[], partexprs text",
    ),
    absent(
        "pg_user_mappings",
        "umid oid, srvid oid, srvname name, umuser oid, usename name, umoptions text[]",
    ),
    absent(
        "pg_largeobject_metadata",
        "oid oid, lomowner oid, lomacl text[]",
    ),
    absent(
        "pg_shdescription",
        "objoid oid, classoid oid, description text",
    ),
    absent(
        "pg_depend",
        "classid oid, objid oid, objsubid int4, refclassid oid, refobjid oid, refobjsubid int4, deptype char",
    ),
    absent(
        "pg_auth_members",
        "roleid oid, member oid, grantor oid, admin_option bool",
    ),
    absent(
        "pg_db_role_setting",
        "setdatabase oid, setrole oid, setconfig text[]",
    ),
    absent(
        "pg_default_acl",
        "oid oid, defaclrole oid, defaclnamespace oid, defaclobjtype char, defaclacl text[]",
    ),
    absent(
        "pg_enum",
        "oid oid, enumtypid oid, enumsortorder float8, enumlabel name",
    ),
    absent(
        "pg_range",
        "rngtypid oid, rngsubtype oid, rngmultitypid oid, rngcollation oid, rngsubopc oid, rngcanonical oid, rngsubdiff oid",
    ),
    absent(
        "pg_extension",
        "oid oid, extname name, extowner oid, extnamespace oid, extrelocatable bool, extversion text, extconfig oid[], extcondition text[]",
    ),
    absent(
        "pg_available_extensions",
        "name name, default_version text, installed_version text, comment text",
    ),
    absent(
        "pg_publication",
        "oid oid, pubname name, pubowner oid, puballtables bool, pubinsert bool, pubupdate bool, pubdelete bool, \
         pubtruncate bool, pubviaroot bool",
    ),
    absent(
        "pg_publication_rel",
        "oid oid, prpubid oid, prrelid oid, prqual text, prattrs int2[]",
    ),
    absent(
        "pg_publication_namespace",
        "oid oid, pnpubid oid, pnnspid oid",
    ),
    absent(
        "pg_publication_tables",
        "pubname name, schemaname name, tablename name, attnames text[], rowfilter text",
    ),
    absent(
        "pg_subscription",
        "oid oid, subdbid oid, subname name, subowner oid, subenabled bool, subbinary bool, substream bool, subtwophasestate char, subdisableonerr bool, subconninfo text, subslotname name, subsynccommit text, subpublications text[], subskiplsn text",
    ),
    absent(
        "pg_statistic_ext",
        "oid oid, stxrelid oid, stxname name, stxnamespace oid, stxowner oid, stxstattarget int4, stxkeys int2[], \
         stxkind text[], stxexprs text",
    ),
    absent(
        "pg_sequence",
        "seqrelid oid, seqtypid oid, seqstart int8, seqincrement int8, seqmax int8, seqmin int8, seqcache int8, seqcycle bool",
    ),
    absent(
        "pg_sequences",
        "schemaname name, sequencename name, sequenceowner name, data_type text, start_value int8, min_value int8, max_value int8, increment_by int8, cycle bool, cache_size int8, last_value int8",
    ),
    absent(
        "pg_user_mapping",
        "oid oid, umuser oid, umserver oid, umoptions text[]",
    ),
    absent(
        "pg_event_trigger",
        "oid oid, evtname name, evtevent name, evtowner oid, evtfoid oid, evtenabled char, evttags text[]",
    ),
    absent(
        "pg_cast",
        "oid oid, castsource oid, casttarget oid, castfunc oid, castcontext char, castmethod char",
    ),
    absent(
        "pg_operator",
        "oid oid, tableoid oid = 0, oprname name, oprnamespace oid, oprowner oid, oprkind char, oprcanmerge bool, oprcanhash bool, oprleft oid, oprright oid, oprresult oid, oprcom oid, oprnegate oid, oprcode text, oprrest text, oprjoin text",
    ),
    absent(
        "pg_opclass",
        "oid oid, tableoid oid = 0, opcmethod oid, opcname name, opcnamespace oid, opcowner oid, opcfamily oid, opcintype oid, opcdefault bool, opckeytype oid",
    ),
    absent(
        "pg_aggregate",
        "aggfnoid text, aggkind char, aggnumdirectargs int2",
    ),
    absent(
        "pg_language",
        "oid oid, tableoid oid = 2612, lanname name, lanowner oid, lanispl bool, lanpltrusted bool, lanplcallfoid oid, laninline oid, lanvalidator oid, lanacl text[]",
    ),
    absent(
        "pg_conversion",
        "oid oid, conname name, connamespace oid, conowner oid, conforencoding int4, contoencoding int4, conproc text, condefault bool",
    ),
    absent(
        "pg_ts_config",
        "oid oid, cfgname name, cfgnamespace oid, cfgowner oid, cfgparser oid",
    ),
    absent(
        "pg_ts_dict",
        "oid oid, dictname name, dictnamespace oid, dictowner oid, dicttemplate oid, dictinitoption text",
    ),
    absent("pg_ts_parser", "oid oid, prsname name, prsnamespace oid"),
    absent(
        "pg_ts_template",
        "oid oid, tmplname name, tmplnamespace oid",
    ),
    absent(
        "pg_opfamily",
        "oid oid, tableoid oid = 0, opfmethod oid, opfname name, opfnamespace oid, opfowner oid",
    ),
    absent(
        "pg_amop",
        "oid oid, amopfamily oid, amoplefttype oid, amoprighttype oid, amopstrategy int2, amoppurpose char, amopopr oid, amopmethod oid, amopsortfamily oid",
    ),
    absent(
        "pg_amproc",
        "oid oid, amprocfamily oid, amproclefttype oid, amprocrighttype oid, amprocnum int2, amproc text",
    ),
    absent("pg_parameter_acl", "oid oid, parname text, paracl text[]"),
    absent(
        "pg_prepared_xacts",
        "transaction xid, gid text, prepared timestamptz, owner name, database name",
    ),
    absent(
        "pg_locks",
        "locktype text, database oid, relation oid, pid int4, mode text, granted bool",
    ),
];
