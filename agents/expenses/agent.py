"""Validates expense claims against the policy, with the vendor register's and compliance's word."""

from agents.compliance.models import Approval, Spend, SpendVendor
from agents.expenses.claim import LineItem, parse_csv
from agents.expenses.models import Decision, ExpenseClaim
from agents.expenses.policy import assess
from agents.expenses.vendor_lookup import Vendor, look_up, register_client
from sidecard import Agent, File, Task
from sidecard.settings import Settings

agent = Agent(
    name="expenses",
    version="1.0.0",
    description="Validates expense claims against the travel policy, and has compliance approve what needs approval.",
    publisher="Travel Desk",
)


@agent.skill(
    scope="expenses:validate",
    idempotent=False,
    tags=["expenses", "policy"],
    examples=['{"items": [{"vendor": "Hotel Avenida", "amount": 180, "category": "hotel", "receipt": true}]}'],
)
async def validate_expense(claim: ExpenseClaim, task: Task) -> Decision:
    """Validate a claim. Ends COMPLETED when it is paid and REJECTED, with the reason, when it is not.

    Takes line items as data, or a CSV file. Every vendor is looked up in the vendor register; claims of some size are
    reviewed by compliance, which may have a person decide.
    """
    items = claim.items or _items(claim.report, task)
    names = dict.fromkeys(item.vendor for item in items)
    vendors = {name: await task.tool("look up vendor", _look_up, name) for name in names}
    statuses = {name: vendor.status for name, vendor in vendors.items()}
    assessment = assess(items, today=(await task.now()).date(), vendors=statuses)
    if assessment.proposal == "reject":
        task.reject(assessment.summary)
    approval = Approval(approved_by="policy", reason=assessment.summary)
    if assessment.must_ask_compliance:
        spend = Spend(
            total_eur=assessment.total_eur,
            vendors=[SpendVendor(name=n, status=v.status, risk_note=v.risk_note) for n, v in vendors.items()],
            purpose=claim.purpose,
            exceptions=[finding.message for finding in assessment.findings],
        )
        approval = await task.delegate("compliance", "review_spend", spend, output=Approval, rejected="reject")
    return Decision(
        decision="approved",
        approved_by=approval.approved_by,
        total_eur=assessment.total_eur,
        reason=approval.reason,
        findings=assessment.findings,
    )


def _items(report: File | None, task: Task) -> list[LineItem]:
    if report is None:
        task.reject("The claim is empty: send line items as data, or a CSV file with the columns vendor and amount.")
    if report.url:
        task.reject("Send the CSV file itself; files behind a URL are not fetched.")
    read = parse_csv(report.content)
    if read.errors:
        task.reject(f"{report.name or 'The CSV file'} can't be read. {' '.join(read.errors)}")
    return read.items


async def _look_up(name: str) -> Vendor:
    settings = Settings.load(agent.name)
    async with register_client(settings.dapr_http_port, settings.dapr_api_token.get_secret_value()) as client:
        return await look_up(name, client=client)
