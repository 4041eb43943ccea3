import { verifyEmailDetailed } from '@devmehq/email-validator-js';

import { answer } from './asked.mjs';

// The one with caches of its own. It has no word for a domain that accepts everybody.
answer(async (email) => {
  const found = await verifyEmailDetailed({
    emailAddress: email,
    verifyMx: true,
    verifySmtp: true,
    timeout: 10000,
  });
  const mailbox = found.smtp?.valid;
  const said = mailbox === true ? 'exists' : mailbox === false ? 'missing' : 'unknown';
  return { said, why: found.smtp?.error ?? found.metadata?.error };
});
