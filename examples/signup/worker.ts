/** All subscriptions in one process. They could as well be five programs, deployed and scaled one by one. */
import { constants, setPriority } from 'node:os'
import { connect } from 'posthorn'
import { Accounts } from './accounts.ts'
import { argumentAfter, reportReady, whenAskedToStop } from './child.ts'
import { closeEmail } from './services/email.ts'
import { subscribeAccountStatus } from './subscriptions/account-status.ts'
import { subscribeCreateCustomer } from './subscriptions/create-customer.ts'
import { subscribeFraudCheck } from './subscriptions/fraud-check.ts'
import { subscribeNotifySlack } from './subscriptions/notify-slack.ts'
import { subscribeWelcomeEmail } from './subscriptions/welcome-email.ts'

const file = argumentAfter('--file')
const post = await connect(`sqlite:${file}`)
const accounts = new Accounts(file)

const subscriptions = [
  subscribeWelcomeEmail(post),
  subscribeFraudCheck(post),
  subscribeCreateCustomer(post),
  subscribeNotifySlack(post),
  subscribeAccountStatus(post, accounts),
]

// From here on every sign-up reaches all of them.
await Promise.all(subscriptions.map(({ ready }) => ready))

// Where workers and the endpoint share a machine, the endpoint goes first. On Linux this concerns the present thread,
// which runs the handlers; Posthorn's own, begun by connect(), holds the database's lock at times and is not slowed.
setPriority(constants.priority.PRIORITY_BELOW_NORMAL)

reportReady({})

whenAskedToStop(async () => {
  await post.close()
  accounts.close()
  closeEmail()
})
