# Every bank that is measured.
QUALITY = expand(rules.measure_bank.output, bank=measured_banks(PARAMS))
# What the report is made from: every run, or with --config partial=true those that are there.
EVERY_RUN = finished(expand(rules.pretrain_encoder.output, run=RUNS))
EVERY_PROBE = finished(expand(rules.probe_encoder.output, encoder=ENCODERS))
EVERY_TRANSFER = finished(TRANSFERS)
EVERY_QUALITY = finished(QUALITY)


rule collect_results:
    """Manifests of all runs -> one tidy frame."""
    input:
        EVERY_PROBE,
        EVERY_TRANSFER,
        EVERY_QUALITY,
    output:
        frame="<reports>/frame.csv",
        metrics="<reports>/metrics.json",
        manifest="<reports>/frame.manifest.json",
    log:
        "<logs>/collect_results.log",
    params:
        root=folder_of(RESULTS),
        spec=spec_of(report_of("collect-results")),
        code=code_of(report_of("collect-results")),
    shell:
        "exec python -m clsp collect-results --spec {params.spec:q} --code {params.code}"
        " --root {params.root:q} --frame {output.frame:q} --metrics {output.metrics:q}"
        " --manifest {output.manifest:q} 2> {log:q}"


rule judge_claims:
    """Verdicts on what the paper claims, and an in-toto test result about them."""
    input:
        frame=rules.collect_results.output,
        claims="reports/spec/claims.yaml",
    output:
        verdicts="<reports>/verdicts.json",
        statement="<reports>/verdicts.intoto.json",
        csv=report(
            "<reports>/claims.csv",
            caption="../reports/spec/captions/claims.rst",
            category="Claims",
        ),
        md="<reports>/claims.md",
        tex="<reports>/claims.tex",
        manifest="<reports>/claims.manifest.json",
    log:
        "<logs>/judge_claims.log",
    params:
        root=folder_of(RESULTS),
        spec=spec_of(report_of("judge-claims")),
        code=code_of(report_of("judge-claims")),
    shell:
        "exec python -m clsp judge-claims --spec {params.spec:q} --code {params.code}"
        " --root {params.root:q} --frame {input.frame:q} --claims {input.claims:q}"
        " --verdicts {output.verdicts:q} --statement {output.statement:q} --csv {output.csv:q}"
        " --md {output.md:q} --tex {output.tex:q} --manifest {output.manifest:q} 2> {log:q}"


rule render_table:
    """One table as csv (the numbers), md and tex."""
    input:
        frame=rules.collect_results.output,
        published="reports/spec/published.yaml",
    output:
        csv=report(
            "<reports>/tables/{table}.csv",
            caption="../reports/spec/captions/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        md="<reports>/tables/{table}.md",
        tex="<reports>/tables/{table}.tex",
        manifest="<reports>/tables/{table}.manifest.json",
    log:
        "<logs>/render_table/{table}.log",
    params:
        spec=spec_of(report_of("render-table")),
        code=code_of(report_of("render-table")),
    shell:
        "exec python -m clsp render-table --spec {params.spec:q} --code {params.code}"
        " --table {wildcards.table} --frame {input.frame:q} --published {input.published:q}"
        " --csv {output.csv:q} --md {output.md:q} --tex {output.tex:q}"
        " --manifest {output.manifest:q} 2> {log:q}"


rule render_figure:
    """One figure as png, with its numbers as csv."""
    input:
        EVERY_RUN,
        EVERY_QUALITY,
        frame=rules.collect_results.output,
        expectations=[
            "reports/spec/claims.yaml",
            "reports/spec/official_curves.json",
            "reports/spec/explanations.yaml",
        ],
    output:
        csv="<reports>/figures/{figure}.csv",
        png=report(
            "<reports>/figures/{figure}.png",
            caption="../reports/spec/captions/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        manifest="<reports>/figures/{figure}.manifest.json",
    log:
        "<logs>/render_figure/{figure}.log",
    params:
        root=folder_of(RESULTS),
        spec=spec_of(report_of("render-figure")),
        code=code_of(report_of("render-figure")),
    shell:
        "exec python -m clsp render-figure --spec {params.spec:q} --code {params.code}"
        " --figure {wildcards.figure} --root {params.root:q} --frame {input.frame:q}"
        " --expectations {input.expectations:q} --csv {output.csv:q} --png {output.png:q}"
        " --manifest {output.manifest:q} 2> {log:q}"


rule render_report:
    """The HTML report: one self-contained file in which every number can be traced."""
    input:
        frame=rules.collect_results.output,
        tables=expand(rules.render_table.output, table=PARAMS.tables),
        figures=expand(rules.render_figure.output, figure=PARAMS.figures),
        claims=rules.judge_claims.output,
        expectations=[
            "reports/spec/official_curves.json",
            "reports/spec/explanations.yaml",
        ],
        deviations="reports/spec/deviations.yaml",
        template="clsp/report/report.html.jinja",
        duplicates=rules.count_duplicates.output,
    output:
        page=report(
            "<reports>/report.html",
            caption="../reports/spec/captions/page.rst",
            category="Report",
        ),
        manifest="<reports>/report.manifest.json",
    log:
        "<logs>/render_report.log",
    params:
        root=folder_of(RESULTS),
        spec=spec_of(report_of("render-report")),
        code=code_of(report_of("render-report")),
    shell:
        "exec python -m clsp render-report --spec {params.spec:q} --code {params.code}"
        " --root {params.root:q} --frame {input.frame:q} --claims {input.claims:q}"
        " --tables {input.tables:q} --figures {input.figures:q}"
        " --expectations {input.expectations:q} --deviations {input.deviations:q}"
        " --template {input.template:q} --page {output.page:q}"
        " --manifest {output.manifest:q} 2> {log:q}"
