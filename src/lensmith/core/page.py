"""The look of lensmith's report pages: one style sheet, light and dark, screen and paper."""

STYLE = """
:root{color-scheme:light dark;--ink:#17202b;--dim:#5b6877;--line:#dfe5ec;--paper:#fff;--ground:#f4f6f9;--code:#eef2f6;
--accent:#2456c8;--noise:#9aa7b5;--good:#147a3f;--bad:#b42318;--open:#8a5a00;
--critical:#8f1239;--high:#b42318;--medium:#a35200;--low:#2456c8;--info:#5b6877}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf1;--dim:#9aa7b6;--line:#2a3441;--paper:#161d26;--ground:#0e141b;
--code:#222c38;--accent:#7ea6ff;--noise:#66758a;--good:#4ac582;--bad:#ff8a7a;--open:#e6b255;
--critical:#ff7fa3;--high:#ff8a7a;--medium:#f0a85a;--low:#7ea6ff;--info:#9aa7b6}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);overflow-wrap:anywhere;
font:15px/1.55 system-ui,"Segoe UI","Liberation Sans",Arial,sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 20px 56px}
header,section{background:var(--paper);border:1px solid var(--line);border-radius:14px;margin:0 0 20px;
padding:24px 28px}
header{border-top:6px solid var(--tone);padding-top:20px}
header.clean{--tone:var(--good)}header.found{--tone:var(--bad)}header.open{--tone:var(--open)}
.kicker{margin:0;color:var(--dim);font-size:13px;letter-spacing:.06em;text-transform:uppercase}
h1{font-size:30px;line-height:1.2;margin:2px 0 8px;color:var(--tone,var(--ink))}
h2{font-size:19px;margin:0 0 12px}
h3{font-size:16px;line-height:1.35;margin:0 0 4px}
p{margin:0 0 10px;max-width:82ch}
.target{display:flex;flex-wrap:wrap;gap:2px 14px;margin:0 0 18px;color:var(--dim)}
.model{color:var(--ink);font-weight:600}
dl{margin:0}dd{margin:0}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px 24px;padding-top:16px;
border-top:1px solid var(--line)}
.facts dt{font-size:13px;color:var(--dim)}
.facts strong{font-size:21px;display:block;line-height:1.3;font-variant-numeric:tabular-nums}
.dim{color:var(--dim)}
table{border-collapse:collapse;width:100%}
th{text-align:left;font-weight:600;font-size:13px;color:var(--dim)}
th,td{vertical-align:top;padding:12px 18px 12px 0;border-bottom:1px solid var(--line)}
tbody:last-child tr:last-child>*{border-bottom:0}
.findings thead th{padding-top:0}
.findings td{padding:16px 18px 16px 0}
.findings td:first-child{width:104px}
.cost{width:150px;font-variant-numeric:tabular-nums;font-size:14px}
.cost:last-child{padding-right:0}.cost>span{display:block}
.chip{display:inline-block;min-width:78px;text-align:center;border-radius:99px;padding:1px 10px;font-size:13px;
font-weight:600;color:var(--tone);border:1.5px solid var(--tone)}
.chip.critical{--tone:var(--critical);background:var(--tone);color:var(--paper)}
.chip.high{--tone:var(--high);background:var(--tone);color:var(--paper)}
.chip.medium{--tone:var(--medium)}.chip.low{--tone:var(--low)}.chip.info{--tone:var(--info)}
.below{display:block;font-size:12px;color:var(--dim);margin-top:4px}
.through{font-size:13px;color:var(--dim);margin:0 0 6px}
.through b{color:var(--ink);border-radius:6px;background:var(--code);padding:2px 7px;margin-right:4px}
.meaning{color:var(--dim)}
.cure{margin:0 0 18px}.cure p{margin:0 0 4px}.cure code+p{margin-top:10px}.cure code{font-size:14px}
.lead{font-size:17px;margin:0 0 10px}
h3 small{font-weight:400;font-size:12px;color:var(--dim);margin-left:8px}
.remedy{border-left:3px solid var(--line);padding-left:12px;margin:0 0 6px}
.remedy div{margin:0 0 6px}
.remedy dt{font-size:12px;font-weight:600;color:var(--dim)}
code{font:13px/1.5 ui-monospace,"Liberation Mono",Menlo,Consolas,monospace;background:var(--code);border-radius:5px;
padding:1px 5px;-webkit-box-decoration-break:clone;box-decoration-break:clone}
.plain th{width:240px;font-weight:400}
.plain th,.plain td{padding:5px 18px 5px 0;font-size:14px}
code.line{display:block;padding:6px 10px;margin-top:2px}
details{margin:8px 0 0}summary{cursor:pointer;color:var(--dim);font-size:14px}
figure{margin:8px 0 0}
.plot{width:100%;height:auto;display:block;font:12px system-ui,"Liberation Sans",Arial,sans-serif}
.plot text{fill:var(--dim)}.plot .grid{stroke:var(--line)}
.plot polyline{fill:none;stroke-width:2.2;stroke-linejoin:round}
.plot polyline.signal{stroke:var(--accent)}.plot polyline.noise{stroke:var(--noise)}
.plot circle.signal{fill:var(--accent)}.plot circle.noise{fill:var(--noise)}
.plot .guide{stroke-dasharray:3 5;stroke:var(--mark);opacity:.55}
.plot .drop{stroke:var(--mark);stroke-width:2.2}
.plot .width{--mark:var(--bad)}.plot .gap{--mark:var(--medium)}
.plot text.label{fill:var(--mark);font-size:13px}.plot text.label.width{font-weight:700}
.plot .bar{fill:var(--accent)}.plot .bar.shut{fill:var(--good)}.plot .bar.partly{fill:var(--medium)}
.plot text.name{fill:var(--ink);font-size:13px}
ul{margin:0;padding-left:20px}li{margin:0 0 6px}
.legend{font-size:14px}.legend ul{list-style:none;padding:0}.findings tbody:last-child td{padding-bottom:0}
.legend li{display:grid;grid-template-columns:100px 1fr;align-items:baseline}
.legend .chip{justify-self:start}.legend .codes li{grid-template-columns:34px 1fr}
.legend li code{justify-self:start}.legend h3{font-size:14px}
.two{display:grid;grid-template-columns:1fr 1fr;gap:8px 32px;margin:0 0 8px}
footer{color:var(--dim);font-size:13px;padding:0 6px}
.scroll{overflow-x:auto}
.plot.narrow{display:none}.plot.narrow text.label{font-size:12px}
@media(max-width:760px){.scroll .plot{min-width:640px}.plot.narrow{display:block}.plot.wide{display:none}
main{padding:16px 10px 40px}
header,section{padding:18px}.two{grid-template-columns:1fr}h1{font-size:24px}
.findings thead{display:none}.findings td{display:block;width:auto!important;padding:4px 0;border:0}
.findings tbody{display:block;border-bottom:1px solid var(--line);padding:12px 0}
.findings .cost::before{content:"Spent here: ";color:var(--dim)}
.findings .cost:last-child::before{content:"The whole attack: "}
.findings .cost>span{display:inline}.findings .cost>span:not(:last-child)::after{content:", "}
.plain th{width:40%}}
@media print{body{background:#fff}header,section{break-inside:avoid-page;border-color:#bbb}}
"""
